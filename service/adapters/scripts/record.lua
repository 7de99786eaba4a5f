#!lua
-- Check every cap exactly, reserve all offers and append the decision to the journal: all or nothing, once for an id.
-- KEYS  1 contacts  2 decision  3 answer  4 journal
-- ARGV  1 now  2 request digest  3 answer or ''  4 decision blob  5 decision TTL ms  6 answer TTL ms  7 journal payload
--       8 reservation seconds  9 horizon  10 contacts TTL ms  11 decision id  12 channel
--       13 offers, msgpack [[action, issue, group, treatment, is_marketing]]
--       14 caps, msgpack [[scope, scope id, counted, limit, since, [channels]]]
-- Returns {'recorded', journal id} | {'repeat', answer} | {'conflict'} | {'refused', action...}
local kept = redis.call('GET', KEYS[3])
if kept then
  local at = string.find(kept, '\n', 1, true)
  if string.sub(kept, 1, at - 1) == ARGV[2] then
    return {'repeat', string.sub(kept, at + 1)}
  end
  return {'conflict'}
end
if redis.call('EXISTS', KEYS[2]) == 1 then
  return {'recorded', ''}
end

local now = tonumber(ARGV[1])
local channel = ARGV[12]
local offers = cmsgpack.unpack(ARGV[13])
local caps = cmsgpack.unpack(ARGV[14])

local function within(channels, wanted)
  if #channels == 0 then return true end
  for _, name in ipairs(channels) do
    if name == wanted then return true end
  end
  return false
end

-- contact = {kind, action, issue, group, treatment, channel, is_marketing, time, decision id and action}
local position = {action = 2, issue = 3, group = 4}

-- The one place of `decision.contact_policy.counter_key` in this script: what a cap counts a thing under, or nil.
local function counter_key(cap, contact)
  local scope, scope_id = cap[1], cap[2]
  if scope == 'all' then return '' end
  if scope == 'marketing' then
    if contact[7] then return '' end
    return nil
  end
  local key = contact[position[scope]]
  if scope_id == '*' then
    if contact[7] then return key end
    return nil
  end
  if scope_id == key then return key end
  return nil
end

local contacts = {}
if #caps > 0 then
  local oldest = math.huge
  for _, cap in ipairs(caps) do oldest = math.min(oldest, cap[5]) end
  local stored = redis.call('ZRANGEBYSCORE', KEYS[1], string.format('(%.17g', oldest), '+inf', 'WITHSCORES')
  local shown = {}
  for i = 1, #stored, 2 do
    local kind, id, action, issue, group, treatment, where, marketing =
      string.match(stored[i], '^([^|]*)|([^|]*)|([^|]*)|([^|]*)|([^|]*)|([^|]*)|([^|]*)|([^|]*)$')
    local what = id .. '|' .. action
    if kind == 'impression' then shown[what] = true end
    contacts[#contacts + 1] = {kind, action, issue, group, treatment, where, marketing == '1', tonumber(stored[i + 1]), what}
  end
  local reservation = tonumber(ARGV[8])
  for i = 1, #contacts do
    local c = contacts[i]
    if c[1] == 'decision' and not shown[c[9]] and now - c[8] < reservation then
      contacts[#contacts + 1] = {'impression', c[2], c[3], c[4], c[5], c[6], c[7], c[8]}
    end
  end
end

local function is_full(cap, offered, granted)
  local counted, limit, since, channels = cap[3], cap[4], cap[5], cap[6]
  local key = counter_key(cap, offered)
  if key == nil or not within(channels, channel) then return false end
  local count = 0
  for _, c in ipairs(contacts) do
    if c[1] == counted and c[8] > since and within(channels, c[6]) and counter_key(cap, c) == key then
      count = count + 1
    end
  end
  if counted == 'decision' or counted == 'impression' then
    for _, c in ipairs(granted) do
      if counter_key(cap, c) == key then count = count + 1 end
    end
  end
  return count >= limit
end

local granted, refused = {}, {'refused'}
for _, offer in ipairs(offers) do
  local contact = {'decision', offer[1], offer[2], offer[3], offer[4], channel, offer[5], now}
  local full = false
  for _, cap in ipairs(caps) do
    if is_full(cap, contact, granted) then full = true break end
  end
  if full then refused[#refused + 1] = offer[1] else granted[#granted + 1] = contact end
end
if #refused > 1 then return refused end

for _, c in ipairs(granted) do
  redis.call('ZADD', KEYS[1], ARGV[1], table.concat({c[1], ARGV[11], c[2], c[3], c[4], c[5], c[6], c[7] and '1' or '0'}, '|'))
end
if #granted > 0 then
  redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', ARGV[9])
  redis.call('PEXPIRE', KEYS[1], ARGV[10])
end
local id = redis.call('XADD', KEYS[4], '*', 'k', 'decision', 'v', ARGV[7])
redis.call('SET', KEYS[2], '\146' .. cmsgpack.pack(id) .. ARGV[4], 'PX', ARGV[5])
if ARGV[3] ~= '' then
  redis.call('SET', KEYS[3], ARGV[2] .. '\n' .. ARGV[3], 'PX', ARGV[6])
end
return {'recorded', id}
