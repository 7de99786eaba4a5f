#!lua
-- Pause or resume a scope, and write down who did it.
-- KEYS  1 switches  2 journal of partition 0      ARGV  1 field  2 JSON of the pause, '' to resume  3 journal payload
if ARGV[2] == '' then
  redis.call('HDEL', KEYS[1], ARGV[1])
else
  redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
end
return redis.call('XADD', KEYS[2], '*', 'k', 'switch', 'v', ARGV[3])
