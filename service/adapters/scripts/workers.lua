#!lua
-- Say that a worker is there, or that it leaves; forget those that said nothing for a lease.
-- KEYS  1 workers, sorted set: name -> server milliseconds until which it counts     ARGV  1 name  2 lease ms, 0 to leave
-- Returns the names of all that are there, sorted: whoever asks knows its rank, and so its fair share.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
if ARGV[2] == '0' then
  redis.call('ZREM', KEYS[1], ARGV[1])
else
  redis.call('ZADD', KEYS[1], now + tonumber(ARGV[2]), ARGV[1])
end
local names = redis.call('ZRANGE', KEYS[1], 0, -1)
table.sort(names)
return names
