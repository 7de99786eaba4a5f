#!lua
-- Check every cap exactly, reserve all offers and append the decision to the journal: all or nothing, once for an id.
-- KEYS  1 contacts  2 decision  3 answer  4 journal  5 tombstone of the customer: where it is, nothing is kept
-- ARGV  1 now  2 request digest  3 answer or ''  4 decision blob  5 decision TTL ms  6 answer TTL ms  7 journal payload
--       8 horizon  9 contacts TTL ms  10 decision id  11 channel
--       12 offers, msgpack [[action, issue, group, treatment, is_marketing, placement]]
--       13 caps on the channel, msgpack [[scope, scope id, counted, limit, since, [channels], [placements], unit]]
--       14 reservation seconds  15 those of single channels, msgpack {channel: seconds}
-- Returns {'recorded', journal id} | {'repeat', answer} | {'conflict'} | {'refused', action, position of the cap, ...}
local kept = redis.call('GET', KEYS[3])
if kept then
  local at = string.find(kept, '\n', 1, true)
  if string.sub(kept, 1, at - 1) == ARGV[2] then
    return {'repeat', string.sub(kept, at + 1)}
  end
  return {'conflict'}
end
if redis.call('EXISTS', KEYS[2]) == 1 or redis.call('EXISTS', KEYS[5]) == 1 then
  return {'recorded', ''}
end

local now = tonumber(ARGV[1])
local channel = ARGV[11]
local offers = cmsgpack.unpack(ARGV[12])
local caps = cmsgpack.unpack(ARGV[13])

-- What is shown, stored or offered, is {action, issue, group, treatment, is_marketing, placement, channel}.
local position = {action = 1, issue = 2, group = 3, treatment = 4}

-- The one place of `decision.contact_scope.counter_key` in this script: what a cap counts a thing under, or nil.
local function counter_key(cap, thing)
  local scope, scope_id = cap[1], cap[2]
  if scope == 'all' then return '' end
  if scope == 'marketing' then
    if thing[5] then return '' end
    return nil
  end
  local key = thing[position[scope]]
  if scope_id == '*' then
    if thing[5] then return key end
    return nil
  end
  if scope_id == key then return key end
  return nil
end

local function within(names, wanted)
  if #names == 0 then return true end
  for _, name in ipairs(names) do
    if name == wanted then return true end
  end
  return false
end

-- counts[cap][counter key]: contacts in the cap's window. A message counts once, whatever it carried.
local counts, messages = {}, {}
for c = 1, #caps do counts[c], messages[c] = {}, {} end

local function count(kind, at, decision, thing)
  for c, cap in ipairs(caps) do
    if cap[3] == kind and at > cap[5] and within(cap[6], thing[7]) and within(cap[7], thing[6]) then
      local key = counter_key(cap, thing)
      local message = key and cap[8] == 'message' and key .. '|' .. decision
      if key and not (message and messages[c][message]) then
        counts[c][key] = (counts[c][key] or 0) + 1
        if message then messages[c][message] = true end
      end
    end
  end
end

if #caps > 0 and #offers > 0 then
  local oldest = math.huge
  for _, cap in ipairs(caps) do oldest = math.min(oldest, cap[5]) end
  local stored = redis.call('ZRANGEBYSCORE', KEYS[1], string.format('(%.17g', oldest), '+inf', 'WITHSCORES')
  local shown, decided = {}, {}
  for i = 1, #stored, 2 do
    local kind, decision, action, issue, group, treatment, where, marketing, placement =
      string.match(stored[i], '^([^|]*)|([^|]*)|([^|]*)|([^|]*)|([^|]*)|([^|]*)|([^|]*)|([^|]*)|([^|]*)$')
    local at = tonumber(stored[i + 1])
    local thing = {action, issue, group, treatment, marketing == '1', placement, where}
    count(kind, at, decision, thing)
    if kind == 'impression' then shown[decision .. '|' .. action] = true end
    if kind == 'decision' then decided[#decided + 1] = {at, decision, thing} end
  end
  -- A decision whose impression may still come counts as one.
  local default, of_channel = tonumber(ARGV[14]), cmsgpack.unpack(ARGV[15])
  for _, d in ipairs(decided) do
    local at, decision, thing = d[1], d[2], d[3]
    if at > now - (of_channel[thing[7]] or default) and not shown[decision .. '|' .. thing[1]] then
      count('impression', at, decision, thing)
    end
  end
end

-- The offers of one decision use up room together, save for caps on responses and on messages.
local refused = {'refused'}
for _, offer in ipairs(offers) do
  offer[7] = channel
  local full, takes = nil, {}
  for c, cap in ipairs(caps) do
    local key = within(cap[6], channel) and within(cap[7], offer[6]) and counter_key(cap, offer)
    if key then
      if (counts[c][key] or 0) >= cap[4] then full = c break end
      if cap[8] == 'action' and (cap[3] == 'decision' or cap[3] == 'impression') then takes[c] = key end
    end
  end
  if full then
    refused[#refused + 1] = offer[1]
    refused[#refused + 1] = full
  else
    for c, key in pairs(takes) do counts[c][key] = (counts[c][key] or 0) + 1 end
  end
end
if #refused > 1 then return refused end

for _, o in ipairs(offers) do
  local contact = {'decision', ARGV[10], o[1], o[2], o[3], o[4], channel, o[5] and '1' or '0', o[6]}
  redis.call('ZADD', KEYS[1], ARGV[1], table.concat(contact, '|'))
end
if #offers > 0 then
  redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', ARGV[8])
  redis.call('PEXPIRE', KEYS[1], ARGV[9])
end
local id = redis.call('XADD', KEYS[4], '*', 'k', 'decision', 'v', ARGV[7])
redis.call('SET', KEYS[2], '\146' .. cmsgpack.pack(id) .. ARGV[4], 'PX', ARGV[5])
if ARGV[3] ~= '' then
  redis.call('SET', KEYS[3], ARGV[2] .. '\n' .. ARGV[3], 'PX', ARGV[6])
end
return {'recorded', id}
