package lists

// Every change of hands is one script, so that an entry is always in exactly one
// place. They use only commands that Redis 6.2 has.

// take gives its caller what is free and due, then what was moved, then what the
// list has, up to a number and a size. It answers with the microseconds of the
// server's clock until the next retry is due, then id, attempt and body of each.
// KEYS: list moved seq body tries free names own alive
// ARGV: name lifetime count bytes pop
const take = `local clock = redis.call('TIME')
local micros = clock[1] * 1000000 + clock[2]
local now = math.floor(micros / 1000)
local left, room = tonumber(ARGV[3]), tonumber(ARGV[4])
local out = {'-1'}
redis.call('SET', KEYS[9], '1', 'PX', ARGV[2])
redis.call('SADD', KEYS[7], ARGV[1])
local function give(id, body, tries)
  redis.call('SADD', KEYS[8], id)
  out[#out + 1] = id
  out[#out + 1] = tries
  out[#out + 1] = body
  left, room = left - 1, room - #body
end
for _, id in ipairs(redis.call('ZRANGEBYSCORE', KEYS[6], '-inf', now, 'LIMIT', 0, left)) do
  if room > 0 then
    redis.call('ZREM', KEYS[6], id)
    local body = redis.call('HGET', KEYS[4], id)
    if body then give(id, body, redis.call('HGET', KEYS[5], id) or '1') end
  end
end
local last = tonumber(redis.call('GET', KEYS[3]) or '0')
if micros > last then last = micros end
local began = last
while left > 0 and room > 0 do
  local body = redis.call('LPOP', KEYS[2]) or redis.call(ARGV[5], KEYS[1])
  if not body then break end
  last = last + 1
  local id = string.format('%.0f', last)
  redis.call('HSET', KEYS[4], id, body)
  give(id, body, '1')
end
if last > began then redis.call('SET', KEYS[3], string.format('%.0f', last), 'EX', '3600') end
local first = redis.call('ZRANGE', KEYS[6], 0, 0, 'WITHSCORES')
if first[2] then out[1] = string.format('%.0f', math.max(0, first[2] - now)) end
return out`

// settle writes outcomes. One that is no longer the caller's is left alone: who
// took it over settles it.
// KEYS: body tries free own
// ARGV: id, attempt and ms to wait of each; -1 is done
const settle = `local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
for i = 1, #ARGV, 3 do
  local id, wait = ARGV[i], tonumber(ARGV[i + 2])
  if redis.call('SREM', KEYS[4], id) == 1 then
    if wait < 0 then
      redis.call('HDEL', KEYS[1], id)
      redis.call('HDEL', KEYS[2], id)
    else
      redis.call('HSET', KEYS[2], id, ARGV[i + 1])
      redis.call('ZADD', KEYS[3], string.format('%.0f', now + wait), id)
    end
  end
end
return #ARGV / 3`

// release frees what belongs to a reader whose key has run out.
// KEYS: free names own alive
// ARGV: name
const release = `if redis.call('EXISTS', KEYS[4]) == 1 then return -1 end
local ids = redis.call('SMEMBERS', KEYS[3])
for _, id in ipairs(ids) do redis.call('ZADD', KEYS[1], '0', id) end
redis.call('DEL', KEYS[3])
redis.call('SREM', KEYS[2], ARGV[1])
return #ids`

// giveBack frees entries of the caller that never reached it.
// KEYS: free own
// ARGV: ids
const giveBack = `for _, id in ipairs(ARGV) do
  if redis.call('SREM', KEYS[2], id) == 1 then redis.call('ZADD', KEYS[1], '0', id) end
end
return #ARGV`
