#!lua
-- Put an entry that was set aside back at the end of the journal.
-- KEYS  1 poison  2 journal     ARGV  1 id in the poison stream      Returns 1, or 0 where it is not there any more.
local found = redis.call('XRANGE', KEYS[1], ARGV[1], ARGV[1])
if #found == 0 then return 0 end
local values = {}
for i = 1, #found[1][2], 2 do values[found[1][2][i]] = found[1][2][i + 1] end
redis.call('XADD', KEYS[2], '*', 'k', values['k'], 'v', values['v'])
redis.call('XDEL', KEYS[1], ARGV[1])
return 1
