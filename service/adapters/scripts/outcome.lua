#!lua
-- Take one outcome: once for an id, only for an action of its decision; append it and move contacts and evidence.
-- One that comes before its decision is parked; `settle` moves contacts and evidence once the decision is there.
-- KEYS  1 decision  2 seen  3 journal  4 evidence  5 parked outcomes of the decision
-- ARGV  1 body digest  2 seen TTL ms  3 outcome blob  4 decision id  5 action id  6 type  7 occurred at
--       8 prefix of contacts keys of this partition  9 contacts TTL ms
--       10 'take', or 'settle' for an outcome that was taken before  11 parked TTL ms
-- The key of the customer's contacts is known only from the decision; it carries the same tag as KEYS.
local is_new = ARGV[10] == 'take'
local before = is_new and redis.call('GET', KEYS[2])
if before then
  if before == ARGV[1] then return 'duplicate' end
  return 'conflict'
end

local stored = redis.call('GET', KEYS[1])
if not stored then
  if is_new then
    redis.call('XADD', KEYS[3], '*', 'k', 'orphan', 'v', '\146\192' .. ARGV[3])
    redis.call('SET', KEYS[2], ARGV[1], 'PX', ARGV[2])
    redis.call('RPUSH', KEYS[5], ARGV[3])
    redis.call('PEXPIRE', KEYS[5], ARGV[11])
  end
  return 'orphan'
end

local at, _ = cmsgpack.unpack_one(stored, 1) -- past the journal id, which follows the array's one byte of header
local blob = string.sub(stored, at + 1)
local decision = cmsgpack.unpack(blob)
local offer, place = nil, nil
for i, candidate in ipairs(decision[5]) do
  if candidate[1] == ARGV[5] then offer, place = candidate, i end
end
if not offer then return 'foreign_action' end

-- Add to a decayed sum of the action, kept as `sum|anchor`: what lies before the anchor counts less by now, and what
-- lies after it moves the anchor on; so the order in which outcomes come does not matter.
local function add(kind, amount)
  local field, at, half_life = ARGV[5] .. '|' .. kind, tonumber(ARGV[7]), decision[7]
  local held = redis.call('HGET', KEYS[4], field)
  local sum, anchor = 0, at
  if held then
    local split = string.find(held, '|', 1, true)
    sum, anchor = tonumber(string.sub(held, 1, split - 1)), tonumber(string.sub(held, split + 1))
  end
  local last = math.max(at, anchor)
  sum = sum * 2 ^ ((anchor - last) / half_life) + amount * 2 ^ ((at - last) / half_life)
  redis.call('HSET', KEYS[4], field, string.format('%.17g|%.17g', sum, last))
end

if is_new then
  redis.call('XADD', KEYS[3], '*', 'k', 'outcome', 'v', '\146' .. blob .. ARGV[3])
  redis.call('SET', KEYS[2], ARGV[1], 'PX', ARGV[2])
end
local contacts = ARGV[8] .. decision[2]
local contact = table.concat(
  {ARGV[6], ARGV[4], offer[1], offer[2], offer[3], offer[4], decision[4], offer[5] and '1' or '0', offer[6]}, '|')
if redis.call('ZADD', contacts, 'NX', ARGV[7], contact) == 1 then
  redis.call('PEXPIRE', contacts, ARGV[9])
  add(ARGV[6], 1)
  if ARGV[6] == 'impression' and decision[6] then add('expected', decision[6][place]) end
  redis.call('HINCRBY', KEYS[4], 'version', 1)
end
return 'accepted'
