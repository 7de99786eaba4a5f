#!lua
-- What the owner of a partition does to its keys. Everything but taking the lease is refused to who is no longer owner.
-- KEYS  1 lease  2 fence  3 applied  4 intent  5 journal  6 poison  7 erasures
-- ARGV  1 operation  2 owner and, but for 'take', '|' and its fencing token  3.. per operation
-- Returns the token for 'take' (0 where another owns the partition), else 1, or 0 where the caller owns it no longer.
local held = redis.call('GET', KEYS[1])
local operation = ARGV[1]

if operation == 'take' then -- 3 lease TTL ms  4 token that the lake has seen: the new one is greater, also in a new store
  if held then
    local owner, token = string.match(held, '^(.*)|(%d+)$')
    if owner ~= ARGV[2] then return 0 end
    redis.call('PEXPIRE', KEYS[1], ARGV[3])
    return tonumber(token)
  end
  local token = math.max(redis.call('INCR', KEYS[2]), tonumber(ARGV[4]) + 1)
  redis.call('SET', KEYS[2], string.format('%d', token))
  redis.call('SET', KEYS[1], ARGV[2] .. '|' .. string.format('%d', token), 'PX', ARGV[3])
  return token
end

if held ~= ARGV[2] then return 0 end
if operation == 'check' then
  return 1
elseif operation == 'give' then
  redis.call('DEL', KEYS[1])
elseif operation == 'intend' then -- 3 intent
  redis.call('SET', KEYS[4], ARGV[3])
elseif operation == 'applied' then -- 3 id of the last event applied
  redis.call('SET', KEYS[3], ARGV[3])
  redis.call('DEL', KEYS[4])
elseif operation == 'trim' then -- 3 id of the first entry to keep
  redis.call('XTRIM', KEYS[5], 'MINID', ARGV[3])
elseif operation == 'aside' then -- 3 id  4 kind  5 payload  6 error
  redis.call('XADD', KEYS[6], '*', 'id', ARGV[3], 'k', ARGV[4], 'v', ARGV[5], 'error', ARGV[6])
  redis.call('XDEL', KEYS[5], ARGV[3])
elseif operation == 'forgotten' then -- 3 receipt id
  redis.call('HDEL', KEYS[7], ARGV[3])
else
  return redis.error_reply('unknown operation ' .. operation)
end
return 1
