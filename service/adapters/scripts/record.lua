#!lua
-- Check every cap exactly, reserve all offers and append the decision to the journal: all or nothing, once for an id.
-- KEYS  1 contacts  2 decision  3 answer  4 journal  5 tombstone of the customer: where it is, nothing is kept
-- ARGV  1 now  2 request digest  3 answer, or '' where no key was sent under which one could be kept
--       4 decision blob, msgpack [customer id, digest, time, channel, offers, ...], the offers
--         [[action, issue, group, treatment, is_marketing, placement]]
--       5 decision TTL ms  6 answer TTL ms  7 journal payload  8 horizon  9 contacts TTL ms  10 decision id
--       11 caps on the channel, msgpack [[[scope, scope id, counted, limit, [channels] or false for all, [placements]
--          or false, unit]], {channel: reservation seconds}]
--       12 moments after which the contacts of each cap count, msgpack [since]
--       13 reservation seconds of all other channels
-- Returns {'recorded', journal id} | {'repeat', answer} | {'conflict'} | {'refused', action, position of the cap, ...}
local kept = ARGV[3] ~= '' and redis.call('GET', KEYS[3])
if kept then
  local at = string.find(kept, '\n', 1, true)
  if string.sub(kept, 1, at - 1) == ARGV[2] then
    return {'repeat', string.sub(kept, at + 1)}
  end
  return {'conflict'}
end
if redis.call('EXISTS', KEYS[2], KEYS[5]) > 0 then
  return {'recorded', ''}
end

local now, blob = tonumber(ARGV[1]), cmsgpack.unpack(ARGV[4])
local channel, offers = blob[4], blob[5]
local caps, reservations, since = {}, {}, {}
if #offers > 0 then
  caps, reservations = unpack(cmsgpack.unpack(ARGV[11]))
  since = cmsgpack.unpack(ARGV[12])
end

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
  if not names then return true end
  for _, name in ipairs(names) do
    if name == wanted then return true end
  end
  return false
end

-- bound[offer][cap]: what a cap that binds the offer counts it under. counts[cap][counter key]: contacts in the cap's
-- window, of these keys alone. live[kind]: the caps that bind any offer, by the contacts that they count; oldest[kind]:
-- when the longest of their windows began.
local bound, counts, live, oldest = {}, {}, {}, {}
for o, offer in ipairs(offers) do
  offer[7] = channel
  bound[o] = {}
  for c, cap in ipairs(caps) do
    local key = counter_key(cap, offer)
    if key and within(cap[5], channel) and within(cap[6], offer[6]) then
      local kind = cap[3]
      if not counts[c] then
        counts[c] = {}
        live[kind] = live[kind] or {}
        table.insert(live[kind], c)
        oldest[kind] = math.min(oldest[kind] or math.huge, since[c])
      end
      bound[o][c], counts[c][key] = key, 0
    end
  end
end

local messages = {} -- a message counts once, whatever it carried
local function count(kind, at, decision, thing)
  for _, c in ipairs(live[kind]) do
    local cap, counted = caps[c], counts[c]
    local key = at > since[c] and counter_key(cap, thing)
    if key and counted[key] and within(cap[5], thing[7]) and within(cap[6], thing[6]) then
      local message = cap[7] == 'message' and table.concat({c, key, decision}, '|')
      if not (message and messages[message]) then
        counted[key] = counted[key] + 1
        if message then messages[message] = true end
      end
    end
  end
end

local first = math.huge
for _, at in pairs(oldest) do first = math.min(first, at) end
if first < math.huge then
  local default, longest = tonumber(ARGV[13]), tonumber(ARGV[13])
  for _, seconds in pairs(reservations) do longest = math.max(longest, seconds) end
  local reserved = live.impression and math.max(oldest.impression, now - longest) or math.huge
  local stored = redis.call('ZRANGEBYSCORE', KEYS[1], string.format('(%.17g', first), '+inf', 'WITHSCORES')
  for i = 1, #stored, 2 do
    local contact, at = stored[i], tonumber(stored[i + 1])
    local kind = string.match(contact, '^[^|]*')
    local counts_itself = at > (oldest[kind] or math.huge)
    local may_be_shown = kind == 'decision' and at > reserved
    if counts_itself or may_be_shown then
      local decision, action, issue, group, treatment, where, marketing, placement =
        string.match(contact, '|([^|]*)|([^|]*)|([^|]*)|([^|]*)|([^|]*)|([^|]*)|([^|]*)|([^|]*)$')
      local thing = {action, issue, group, treatment, marketing == '1', placement, where}
      if counts_itself then count(kind, at, decision, thing) end
      -- A decision whose impression may still come counts as one.
      if may_be_shown and at > now - (reservations[where] or default)
        and not redis.call('ZSCORE', KEYS[1], 'impression' .. string.sub(contact, #kind + 1)) then
        count('impression', at, decision, thing)
      end
    end
  end
end

-- The offers of one decision use up room together, save for caps on responses and on messages.
local refused = {'refused'}
for o, offer in ipairs(offers) do
  local full, takes = nil, {}
  for c = 1, #caps do
    local key, cap = bound[o][c], caps[c]
    if key then
      if counts[c][key] >= cap[4] then full = c break end
      if cap[7] == 'action' and (cap[3] == 'decision' or cap[3] == 'impression') then takes[c] = key end
    end
  end
  if full then
    refused[#refused + 1] = offer[1]
    refused[#refused + 1] = full
  else
    for c, key in pairs(takes) do counts[c][key] = counts[c][key] + 1 end
  end
end
if #refused > 1 then return refused end

if #offers > 0 then
  local contacts = {}
  for _, o in ipairs(offers) do
    contacts[#contacts + 1] = ARGV[1]
    contacts[#contacts + 1] =
      table.concat({'decision', ARGV[10], o[1], o[2], o[3], o[4], channel, o[5] and '1' or '0', o[6]}, '|')
  end
  redis.call('ZADD', KEYS[1], unpack(contacts))
  redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', ARGV[8])
  redis.call('PEXPIRE', KEYS[1], ARGV[9])
end
local id = redis.call('XADD', KEYS[4], '*', 'k', 'decision', 'v', ARGV[7])
redis.call('SET', KEYS[2], '\146' .. cmsgpack.pack(id) .. ARGV[4], 'PX', ARGV[5])
if ARGV[3] ~= '' then
  redis.call('SET', KEYS[3], ARGV[2] .. '\n' .. ARGV[3], 'PX', ARGV[6])
end
return {'recorded', id}
