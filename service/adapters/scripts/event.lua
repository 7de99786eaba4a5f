#!lua
-- Take one event: once for an id; append it, and apply it where the customer states a consent or a time zone.
-- KEYS  1 seen  2 journal  3 consent  4 tombstone of the customer
-- ARGV  1 body digest  2 seen TTL ms  3 event blob  4 field of what is stated or ''  5 its value  6 occurred at
if redis.call('EXISTS', KEYS[4]) == 1 then return 'erased' end
local before = redis.call('GET', KEYS[1])
if before then
  if before == ARGV[1] then return 'duplicate' end
  return 'conflict'
end
redis.call('XADD', KEYS[2], '*', 'k', 'event', 'v', ARGV[3])
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
if ARGV[4] ~= '' then
  local known = redis.call('HGET', KEYS[3], ARGV[4])
  local known_at = known and tonumber(string.match(known, '|([^|]*)$')) or -math.huge
  local at = tonumber(ARGV[6])
  -- The newer word counts; of two of the same moment the refusal.
  if at > known_at or (at == known_at and string.sub(ARGV[5], 1, 1) == '0') then
    redis.call('HSET', KEYS[3], ARGV[4], ARGV[5])
  end
end
return 'accepted'
