#!lua
-- Append what the challenger says of a decision, unless its customer is to be forgotten.
-- KEYS  1 journal  2 tombstone of the customer      ARGV  1 journal payload      Returns how many were appended.
if redis.call('EXISTS', KEYS[2]) == 1 then return 0 end
redis.call('XADD', KEYS[1], '*', 'k', 'shadow', 'v', ARGV[1])
return 1
