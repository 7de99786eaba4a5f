#!lua
-- Write a customer's facts, all views at once, if nobody wrote any since they were read.
-- KEYS  1 the customer's hash as Feast lays it out
-- ARGV  1 how many views are compared  2.. timestamp field, bytes read of it or '', each; then field, value, each
-- Returns 1, or 0 where a view was written meanwhile; then nothing is changed.
local last = 2 * ARGV[1] + 1
for i = 2, last, 2 do
  if (redis.call('HGET', KEYS[1], ARGV[i]) or '') ~= ARGV[i + 1] then return 0 end
end
redis.call('HSET', KEYS[1], unpack(ARGV, last + 1))
return 1
