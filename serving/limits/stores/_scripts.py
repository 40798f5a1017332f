"""What Redis runs: the arithmetic of `serving.limits.buckets` in Lua, atomic, in one round trip.

Numbers are doubles and every one of them a whole number below 2**53, so both say the same. Values:
a rate is `level:at`, a month `start:used`, places a sorted set by the time they end. The one
argument is a JSON array: the time (0: the server's own), the starts of last month, this one and
the next two, the place, for how long it is held, when the charges that are given back were made,
and for each key the name of its bucket, its limit and the cost.
"""

from __future__ import annotations

__all__ = ["GIVE_BACK", "TAKE"]

_SHARED = """
local WINDOW, PLACE_WAIT = 60000, 1000
local now, starts, place, hold, made, charges = unpack(cjson.decode(ARGV[1]))
if now == 0 then
  local time = redis.call('TIME')
  now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
end
local month, month_end = starts[1], starts[2]
for i = 2, 3 do
  if now >= starts[i] then month, month_end = starts[i], starts[i + 1] end
end

local function pair(key)
  local value = redis.call('GET', key)
  if not value then return nil end
  local first, second = string.match(value, '^(%d+):(%d+)$')
  return tonumber(first), tonumber(second)
end
local function put(key, first, second, ttl)
  local value = string.format('%.0f:%.0f', first, second)
  redis.call('SET', key, value, 'PX', string.format('%.0f', ttl))
end
local function divided_up(a, b)
  local rest = math.fmod(a, b)
  return (a - rest) / b + (rest > 0 and 1 or 0)
end
local function level_of(key, limit)
  local level, at = pair(key)
  if not level then return 0 end
  local passed = now - at
  if passed >= WINDOW then return 0 end
  if passed > 0 then return math.max(0, level - limit * passed) end
  return level
end
local function used_of(key)
  local start, used = pair(key)
  if start == month then return used end
  return 0
end
local function put_level(key, level) put(key, level, now, WINDOW + 1000) end
local function put_used(key, used) put(key, month, used, month_end - now + 86400000) end
"""

TAKE = (
    _SHARED
    + """
local found, waits, fits = {}, {}, true
for i, key in ipairs(KEYS) do
  local name, limit, cost = unpack(charges[i])
  local wait = 0
  if name == 'concurrency' then
    redis.call('ZREMRANGEBYSCORE', key, '-inf', string.format('%.0f', now))
    found[i] = redis.call('ZCARD', key)
    if cost > limit then wait = -1
    elseif cost > 0 and found[i] + cost > limit then wait = PLACE_WAIT end
  elseif name == 'month' then
    found[i] = used_of(key)
    if cost > 0 and found[i] + cost > limit then wait = -1 end
  else
    found[i] = level_of(key, limit)
    if cost > limit then wait = -1
    elseif cost > 0 then
      local over = found[i] - (limit - cost) * WINDOW
      if over > 0 then wait = divided_up(over, limit) end
    end
  end
  waits[i] = wait
  if wait ~= 0 then fits = false end
end
local out = {now}
for i, key in ipairs(KEYS) do
  local name, limit, cost = unpack(charges[i])
  local spends = fits and cost > 0
  local remaining, reset = 0, 0
  if name == 'concurrency' then
    if spends then
      redis.call('ZADD', key, string.format('%.0f', now + hold), place)
      redis.call('PEXPIRE', key, string.format('%.0f', hold + 1000))
      found[i] = found[i] + cost
    end
    remaining = math.max(0, limit - found[i])
  elseif name == 'month' then
    if spends then
      found[i] = found[i] + cost
      put_used(key, found[i])
    end
    remaining = math.max(0, limit - found[i])
    if found[i] > 0 then reset = month_end - now end
  else
    if spends then
      found[i] = found[i] + cost * WINDOW
      put_level(key, found[i])
    end
    local left = math.max(0, limit * WINDOW - found[i])
    remaining = (left - math.fmod(left, WINDOW)) / WINDOW
    if limit > 0 then reset = divided_up(found[i], limit) end
  end
  out[3 * i - 1], out[3 * i], out[3 * i + 1] = remaining, reset, waits[i]
end
return out
"""
)

GIVE_BACK = (
    _SHARED
    + """
for i, key in ipairs(KEYS) do
  local name, limit, cost = unpack(charges[i])
  if name == 'concurrency' then
    redis.call('ZREM', key, place)
  elseif name == 'month' then
    if made >= month then put_used(key, math.max(0, used_of(key) - cost)) end
  else
    local left = math.max(0, cost * WINDOW - limit * math.max(0, now - made))
    if left > 0 then put_level(key, math.max(0, level_of(key, limit) - left)) end
  end
end
return 1
"""
)
