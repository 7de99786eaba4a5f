#!lua
-- Begin to forget a customer: from now on nothing of theirs is taken, and nobody may contact them.
-- KEYS  1 tombstone  2 erasures  3 journal  4 contacts  5 consent
-- ARGV  1 keyed hash of the customer  2 receipt id  3 customer id  4 asked at  5 who asked
-- Returns the receipt id: that of an erasure that is still pending, or the new one.
local before = redis.call('GET', KEYS[1])
if before and redis.call('HEXISTS', KEYS[2], before) == 1 then return before end
local last = redis.call('XREVRANGE', KEYS[3], '+', '-', 'COUNT', 1)
local after = last[1] and last[1][1] or '0-0'
redis.call('SET', KEYS[1], ARGV[2])
redis.call('HSET', KEYS[2], ARGV[2], cmsgpack.pack({ARGV[3], ARGV[1], ARGV[4], ARGV[5], after}))
redis.call('DEL', KEYS[4], KEYS[5])
return ARGV[2]
