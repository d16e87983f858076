package redis

// script carries out changes, KEYS[i] for each. ARGV[1] is "all" when either all
// are to be done or none, then come five for each: what to do (save, delete), the
// condition ("", etag, first), the ETag, the time to live in seconds (0: for
// ever), and the value. It returns the numbers of those whose condition did not
// hold; of "all" it is the first, and nothing is done.
//
// A hash is what Dapr's component makes of a value: data, version, and first-write
// when it was saved so. A version begins with the time in microseconds, where
// Dapr's begins with 1, so that an item that is deleted and saved again has none
// of its old ones; both read the other's, and add 1.
const script = `
local function version(key)
  local v = redis.pcall('HGET', key, 'version')
  if type(v) == 'string' then return v end
  return redis.call('EXISTS', key) == 1 and '' or false
end
local seen = {}
local function held(key, cond, etag)
  if cond == '' then return true end
  local v = seen[key]
  if v == nil then v = version(key) end
  if cond == 'etag' then return v == etag end
  return not v
end
local clock
local function start()
  if not clock then
    local t = redis.call('TIME')
    clock = t[1] .. string.rep('0', 6 - #tostring(t[2])) .. t[2]
  end
  return clock
end
local function save(key, cond, ttl, value)
  local r = redis.pcall('HSET', key, 'data', value)
  if type(r) == 'table' and r.err then
    if not string.find(r.err, 'WRONGTYPE', 1, true) then return redis.error_reply(r.err) end
    redis.call('DEL', key)
    redis.call('HSET', key, 'data', value)
  end
  if redis.call('HSETNX', key, 'version', start()) == 0 then redis.call('HINCRBY', key, 'version', 1) end
  if cond == 'first' then
    redis.call('HSET', key, 'first-write', '0')
  elseif cond == '' then
    redis.call('HDEL', key, 'first-write')
  end
  if ttl == '0' then redis.call('PERSIST', key) else redis.call('EXPIRE', key, ttl) end
end
local all, unmet = ARGV[1] == 'all', {}
if all then
  for i, key in ipairs(KEYS) do
    local a = (i - 1) * 5 + 1
    if not held(key, ARGV[a + 2], ARGV[a + 3]) then return {i} end
    seen[key] = ARGV[a + 1] == 'save' and ''
  end
end
for i, key in ipairs(KEYS) do
  local a = (i - 1) * 5 + 1
  local cond = ARGV[a + 2]
  if not all and not held(key, cond, ARGV[a + 3]) then
    unmet[#unmet + 1] = i
  elseif ARGV[a + 1] == 'delete' then
    redis.call('DEL', key)
  else
    local err = save(key, cond, ARGV[a + 4], ARGV[a + 5])
    if err then return err end
  end
end
return unmet`
