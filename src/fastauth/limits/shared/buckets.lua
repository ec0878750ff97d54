-- Token buckets in Redis: one script, run whole or not at all, on Redis's own clock.
--
-- ARGV[1] names what is to be done; each of the functions at the end says what it takes and answers. Every key is named
-- in KEYS and all keys of one call share a hash tag (Redis Cluster); every key that is written gets a time to live.
-- Times are whole microseconds below 2^53, which a Lua number holds exactly.

-- The rule (ITU-T I.371, GCRA), as in src/fastauth/_core_py.py: allowed (1 or 0), arrival time to store, whole tokens
-- remaining, microseconds after which the same is admitted.
local function gcra(tat, now, emission, burst, cost)
  local window = emission * burst
  tat = math.min(math.max(tat, now), now + window)
  local after = tat + emission * cost
  local retry = math.max(0, after - window - now)
  local allowed = 0
  if retry == 0 then
    allowed = 1
    tat = after
  end
  return allowed, tat, math.floor((now + window - tat) / emission), retry
end

local function clock_us()
  local time = redis.call('TIME')
  return time[1] * 1000000 + time[2]
end

local function read_tat(key)
  return tonumber(redis.call('GET', key) or 0)
end

-- A bucket that is full again is as good as no key; the second more is for clocks that are read in milliseconds.
local function write_tat(key, tat, now)
  redis.call('SET', key, string.format('%.0f', tat), 'PX', string.format('%.0f', math.ceil((tat - now) / 1000) + 1000))
end

-- After a FLUSHALL, or a failover that lost writes, the asker still knows how empty the bucket was.
local function recall(tat, now, window, debt)
  return math.max(tat, now + math.min(debt, window))
end

local ops = {}

-- take: KEYS bucket; emission, burst, cost, part, debt, count.
-- Admits up to count requests of that cost; where part is not 0, no more than one part-th of what remains, but one.
-- Answers: how many were admitted, tokens remaining, microseconds until the next is admitted, microseconds until full.
function ops.take(keys, emission, burst, cost, part, debt, count)
  local now = clock_us()
  local window = emission * burst
  local stored = read_tat(keys[1])
  local tat = math.min(math.max(recall(stored, now, window, debt), now), now + window)
  local remaining = math.floor((now + window - tat) / emission)
  count = math.min(count, math.floor(remaining / cost))
  if part > 0 then
    count = math.min(count, math.max(1, math.floor(remaining / part)))
  end
  if count > 0 then
    local _
    _, tat, remaining = gcra(tat, now, emission, burst, cost * count)
  end
  if tat > now and tat ~= stored then
    write_tat(keys[1], tat, now)
  end
  local _, _, _, retry = gcra(tat, now, emission, burst, cost)
  return {count, remaining, retry, tat - now}
end

-- give_back: KEYS bucket; emission, tokens. Tokens that were taken and not spent; the bucket is never more than full.
function ops.give_back(keys, emission, tokens)
  local now = clock_us()
  local tat = read_tat(keys[1]) - emission * tokens
  if tat > now then
    write_tat(keys[1], tat, now)
  else
    redis.call('DEL', keys[1])
  end
  return {0, 0, 0, math.max(0, tat - now)}
end

-- reserve: KEYS failures, attempts; emission, burst, debt, hold, id. One more attempt, if it fits into the budget even
-- should all that are under way fail; it counts as under way for at most hold microseconds.
-- Answers: 1 reserved, 0 the budget is spent, -1 it may be free again once an attempt ends; how many more would fit;
-- microseconds until one more may fail; microseconds until the budget is whole.
function ops.reserve(keys, emission, burst, debt, hold, id)
  local now = clock_us()
  local window = emission * burst
  local stored = read_tat(keys[1])
  local tat = math.min(math.max(recall(stored, now, window, debt), now), now + window)
  if tat > now and tat ~= stored then
    write_tat(keys[1], tat, now)
  end
  local remaining = math.floor((now + window - tat) / emission)
  local _, _, _, retry = gcra(tat, now, emission, burst, 1)
  redis.call('ZREMRANGEBYSCORE', keys[2], '-inf', string.format('%.0f', now))
  if remaining < 1 then
    return {0, 0, retry, tat - now}
  end
  local left = remaining - redis.call('ZCARD', keys[2])
  if left < 1 then
    return {-1, 0, 0, tat - now}
  end
  redis.call('ZADD', keys[2], string.format('%.0f', now + hold), id)
  redis.call('PEXPIRE', keys[2], string.format('%.0f', math.ceil(hold / 1000) + 1000))
  return {1, left - 1, 0, tat - now}
end

-- settle: KEYS failures, attempts; emission, burst, failed, id. The attempt has ended; 1 for one that failed.
function ops.settle(keys, emission, burst, failed, id)
  local now = clock_us()
  local window = emission * burst
  local tat = math.min(math.max(read_tat(keys[1]), now), now + window)
  if failed > 0 then
    tat = math.min(tat + emission, now + window)
    write_tat(keys[1], tat, now)
  end
  redis.call('ZREM', keys[2], id)
  return {0, 0, 0, tat - now}
end

-- beat: KEYS nodes; lifetime in microseconds, id. Answers how many nodes live. It writes, so a Redis that only reads or
-- has no memory left fails it.
function ops.beat(keys, lifetime, id)
  local now = clock_us()
  redis.call('ZREMRANGEBYSCORE', keys[1], '-inf', string.format('%.0f', now))
  redis.call('ZADD', keys[1], string.format('%.0f', now + lifetime), id)
  redis.call('PEXPIRE', keys[1], string.format('%.0f', math.ceil(lifetime / 1000) + 1000))
  return {redis.call('ZCARD', keys[1]), 0, 0, 0}
end

local arguments = {}
for i = 2, #ARGV do
  arguments[i - 1] = tonumber(ARGV[i]) or ARGV[i] -- an id is none: it begins with "#"
end
return ops[ARGV[1]](KEYS, unpack(arguments))
