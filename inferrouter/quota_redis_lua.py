"""The Lua text that counts inside a Redis server: what a batch of operations does there, in one step.

Strategy: it does by itself what happens all the time: charging the running slot or window, moving on to a later one, correcting a
charge that is still in its slot. What several operations do to a bucket is summed up and written once, at the end or before
anything else looks at it. All else it hands back ("n" and the buckets as they are), Python computes it with the very
functions of the other stores, and "W" writes the result if nothing has changed since (a version a bucket). Checks come first
and writes last, as Redis rolls nothing back; numbers travel as text of 17 digits, as a reply would cut them. Must never know of
zones or limits.
"""

from __future__ import annotations

SCRIPT = """
local P, words = ARGV[1], {}
for word in string.gmatch(ARGV[2], '([^\\n]*)\\n') do words[#words + 1] = word end
local expected, fresh, flag = words[1], words[2], words[3]
local call, TTL, EPOCH_TTL = redis.call, 33696000, 34560000  -- the longest window is 366 days
local time = call('TIME')
local clock = time[1] .. '.' .. string.format('%06d', tonumber(time[2]))
local epoch, claim = unpack(call('MGET', P .. 'epoch', P .. 'claim'))
if not epoch then
  if expected ~= '' then return 'lost' end
  epoch = fresh .. ' ' .. clock .. ' ' .. flag
  call('SET', P .. 'epoch', epoch, 'EX', EPOCH_TTL)
elseif expected ~= '' and string.sub(epoch, 1, string.len(expected)) ~= expected then
  return 'other'
end

local function text(x) return string.format('%.17g', x) end

-- What the operations before have changed and not yet written: buckets by name, and records of reservations by id.
local buckets, records, order = {}, {}, {}

local function record(id) return P .. 'r:' .. id end

local function write()
  for name, b in pairs(buckets) do
    if b.changed then
      call('HSET', b.key, 'u', text(b.u), 'v', text(b.v))
      b.changed = false
    end
  end
  for i, id in ipairs(order) do
    local new = records[id]
    call('SET', record(id), new[1], 'PX', new[2])
    order[i] = nil
  end
  records = {}
end

local function forget()
  write()
  buckets = {}
end

local function state_of(id)
  if records[id] then return records[id][1] end
  return call('GET', record(id))
end

local function record_as(id, state, ttl)
  if not records[id] then order[#order + 1] = id end
  records[id] = {state, ttl}
end

-- A bucket as the operations before have left it.
local function bucket(name)
  local b = buckets[name]
  if not b then
    local key = P .. 'b:' .. name
    local f = call('HMGET', key, 'k', 'c', 'l', 'w', 'u', 'q', 'p', 'v', 'd', 'r')
    b = {key = key, k = f[1], c = tonumber(f[2]), w = tonumber(f[4]), u = tonumber(f[5]), plain = f[7] == '1',
      odd = f[3] or f[6], v = tonumber(f[8]), firm = tonumber(f[9]), r = tonumber(f[10])}
    buckets[name] = b
  end
  return b
end

local function raw(name)
  local flat = call('HGETALL', P .. 'b:' .. name)
  if #flat == 0 then return '' end
  local b, slots = {}, {}
  for i = 1, #flat, 2 do
    local slot = string.match(flat[i], '^s(.*)$')
    if slot then slots[#slots + 1] = slot .. ' ' .. flat[i + 1] else b[flat[i]] = flat[i + 1] end
  end
  return table.concat({b.v, b.k, b.h, b.l or '', b.w or '', b.u or '0', b.r or '0', b.q or '', b.p or '1', b.b or '',
    table.concat(slots, ' '), b.m or ''}, '\\t')
end

local function raws(names)
  write()
  local all = {}
  for i, name in ipairs(names) do all[i] = raw(name) end
  return table.concat(all, '\\n')
end

local function with_charge(blocks, first, last, charge, low, high)
  local place = #blocks + 1
  for i, block in ipairs(blocks) do
    if block[1] < high and block[2] > low then
      block[1], block[2], block[3] = math.min(block[1], first), math.max(block[2], last), block[3] + charge
      return
    end
    if block[1] >= high then place = i break end
  end
  table.insert(blocks, place, {first, last, charge})
end

local function merge(blocks, low, high)
  while #blocks > 8 do
    local best, at
    for i = 2, #blocks do
      local first, last = blocks[i - 1][1], blocks[i][2]
      local away = math.max(low - last, first - high)
      if away >= 0 then
        local blurred = blocks[i][1] - blocks[i - 1][2] + (last - first) / 8
        local share = blurred / (blurred + away)
        if not best or share < best then best, at = share, i end
      end
    end
    if not at then return end
    blocks[at - 1] = {blocks[at - 1][1], blocks[at][2], blocks[at - 1][3] + blocks[at][3]}
    table.remove(blocks, at)
  end
end

local function parse_blocks(written)
  local blocks, numbers = {}, {}
  for number in string.gmatch(written or '', '%S+') do numbers[#numbers + 1] = tonumber(number) end
  for i = 1, #numbers, 3 do blocks[#blocks + 1] = {numbers[i], numbers[i + 1], numbers[i + 2]} end
  return blocks
end

local function write_blocks(blocks)
  local numbers = {}
  for _, block in ipairs(blocks) do for j = 1, 3 do numbers[#numbers + 1] = text(block[j]) end end
  return table.concat(numbers, ' ')
end

-- A bucket's fields and, as pairs, its slots.
local function fields_of(key)
  local flat, b, slots = call('HGETALL', key), {}, {}
  for i = 1, #flat, 2 do
    local slot = string.match(flat[i], '^s(.*)$')
    if slot then slots[#slots + 1] = {tonumber(slot), tonumber(flat[i + 1])} else b[flat[i]] = flat[i + 1] end
  end
  return b, slots
end

-- What counts as of the slot `here`, with the blocks that touch what is around it; whether it is plain; and what of it is charged
-- to `here` itself. Nil where a block stands for a long past.
local function counted(slots, blocks, here)
  local used, ahead, beside, by = 0, false, 0, {}
  for _, slot in ipairs(slots) do
    by[slot[1]] = slot[2]
    if slot[1] > here then ahead = true elseif slot[1] >= here - 64 then used = used + slot[2] end
  end
  local most = used
  for last = here + 1, ahead and here + 64 or here do
    used = used + (by[last] or 0) - (by[last - 65] or 0)
    most = math.max(most, used)
  end
  for _, block in ipairs(blocks) do
    if block[1] < here + 65 and block[2] > here - 64 then
      if block[2] - block[1] > 512 then return nil end
      beside = beside + block[3]
    end
  end
  return most + beside, not ahead and beside == 0, by[here] or 0
end

-- The bucket as of another slot or window; nil where only Python knows.
local function moved(name, want, last)
  local b, slots = fields_of(P .. 'b:' .. name)
  local new = {w = want, gone = {}, r = 0, u = 0, p = true}
  local own, blocks = tonumber(b.u) - tonumber(b.r), parse_blocks(b.b)
  if last ~= '' then
    last = tonumber(last)
    if own > 0 then with_charge(blocks, tonumber(b.w), tonumber(b.e), own, tonumber(b.w), tonumber(b.e)) end
    local others, had = {}, 0
    for _, block in ipairs(blocks) do
      if block[1] < last and block[2] > want then
        if block[1] ~= want or block[2] ~= last then return nil end
        had = had + block[3]
      else
        others[#others + 1] = block
      end
    end
    merge(others, want, last)
    new.u, new.b, new.e = had, write_blocks(others), last
    return new
  end
  local near = math.floor(want / 64)
  if own > 0 then slots[#slots + 1] = {tonumber(b.w), own}; new.slot = tonumber(b.w); new.own = own end
  table.sort(slots, function(x, y) return x[1] < y[1] end)
  local folded, kept = near ~= math.floor(tonumber(b.w) / 64), {}
  for _, slot in ipairs(slots) do
    local block = math.floor(slot[1] / 64)
    if folded and math.abs(block - near) > 1 then
      with_charge(blocks, slot[1], slot[1] + 1, slot[2], block * 64, block * 64 + 64)
      new.gone[#new.gone + 1] = 's' .. text(slot[1])
      if slot[1] == new.slot then new.slot = nil end
    else
      kept[#kept + 1] = slot
      if slot[1] == want then new.gone[#new.gone + 1] = 's' .. text(want) end
    end
  end
  if folded then merge(blocks, want - 64, want + 65) end
  local used, plain, at = counted(kept, blocks, want)
  if not used then return nil end
  new.u, new.p, new.r, new.b = used, plain, used - at, write_blocks(blocks)
  return new
end

local verbs = {}

-- Takes every amount or nothing: id, ttl, the time, then name, kind, window, its end (calendar) and amount of each.
function verbs.R(a)
  local state = state_of(a[1])
  if state then return state == 'o' and 'y' or 'd' end
  local todo, now, fits = {}, tonumber(a[3]), true
  for i = 4, #a, 5 do
    local name, want, amount = a[i], tonumber(a[i + 2]), tonumber(a[i + 4])
    local b, new = bucket(name), nil
    if b.k == a[i + 1] and not b.odd and b.w and not (b.firm and b.firm <= now) then
      if b.w == want then
        new = {u = b.u}
      elseif b.plain or a[i + 3] == '' then
        write()
        new = moved(name, want, a[i + 3])
      end
    end
    if not new or new.u + amount > b.c then fits = false break end
    new.name, new.bucket, new.amount = name, b, amount
    todo[#todo + 1] = new
  end
  if not fits then
    local names = {}
    for i = 4, #a, 5 do names[#names + 1] = a[i] end
    return 'n\\n' .. raws(names)
  end
  local now_written = false
  for _, new in ipairs(todo) do
    local b = new.bucket
    b.u, b.v, b.changed = new.u + new.amount, b.v + 1, true
    if new.w then
      if #new.gone > 0 then call('HDEL', b.key, unpack(new.gone)) end
      if new.slot then call('HSET', b.key, 's' .. text(new.slot), text(new.own)) end
      call('HSET', b.key, 'w', text(new.w), 'r', text(new.r), 'b', new.b, 'p', new.p and '1' or '0')
      if new.e then call('HSET', b.key, 'e', text(new.e)) end
      call('EXPIRE', b.key, TTL)
      call('EXPIRE', P .. 'epoch', EPOCH_TTL)
      b.w, b.r, b.plain, now_written = new.w, new.r, new.p, true
    end
  end
  record_as(a[1], 'o', a[2])
  if now_written then write() end
  return 'y'
end

-- What a bucket uses, what of that is older, and whether it is plain, once one of its other slots holds `after`; nil: ask Python.
local function corrected(b, slot, had, after)
  if b.plain and slot < b.w then
    local change = slot >= b.w - 64 and after - had or 0
    return {b.u + change, b.r + change, true}
  end
  local f, slots = fields_of(b.key)
  local blocks, own, kept = parse_blocks(f.b), b.u - b.r, {}
  if #blocks > 8 then return nil end
  for _, each in ipairs(slots) do
    if each[1] == slot then each[2] = after end
    if each[2] > 0 then kept[#kept + 1] = each end
  end
  kept[#kept + 1] = {b.w, own}
  local used, plain = counted(kept, blocks, b.w)
  return used and {used, used - own, plain}
end

-- Corrects what was charged: id, token, ttl, then name, kind, window and delta of each.
local function settle(a, undoing)
  local state = state_of(a[1])
  if state ~= 'o' then
    if undoing and not state then record_as(a[1], 's ' .. a[2], a[3]) end
    if state == 's ' .. a[2] then return 'y' end
    return state and 'f' or 'g'
  end
  local todo, fits = {}, true
  for i = 4, #a, 4 do
    local slot, delta, b = tonumber(a[i + 2]), tonumber(a[i + 3]), bucket(a[i])
    if b.w and b.k ~= a[i + 1] then
      fits = false
    elseif b.w then
      if slot == b.w and b.u + delta >= b.r then
        todo[#todo + 1] = {b, b.u + delta}
      else
        local field = 's' .. a[i + 2]
        local had = slot ~= b.w and call('HGET', b.key, field)
        local after = had and tonumber(had) + delta
        local new = after and after >= 0 and corrected(b, slot, tonumber(had), after)
        if new then
          todo[#todo + 1] = {b, new[1], new[2], field, after, new[3]}
        else
          fits = false
        end
      end
    end
  end
  if not fits then
    local names = {}
    for i = 4, #a, 4 do names[#names + 1] = a[i] end
    return 'n\\n' .. raws(names)
  end
  local now_written = false
  for _, new in ipairs(todo) do
    local b, older, field, after, plain = new[1], new[3], new[4], new[5], new[6]
    b.u, b.v, b.changed = new[2], b.v + 1, true
    if field then
      b.r, b.plain, now_written = older, plain, true
      call('HSET', b.key, 'r', text(older), 'p', plain and '1' or '0', field, text(after))
      if after == 0 then call('HDEL', b.key, field) end
    end
  end
  record_as(a[1], 's ' .. a[2], a[3])
  if now_written then write() end
  return 'y'
end

function verbs.S(a) return settle(a, false) end
function verbs.U(a) return settle(a, true) end

function verbs.L(a) return raws(a) end

-- Writes buckets as Python computed them, if all still have their versions: "o" or "s" or "", id, token, ttl, then 16 of each.
function verbs.W(a)
  forget()
  local way, names, fits = a[1], {}, true
  if way ~= '' then
    local state = call('GET', record(a[2]))
    if way == 'o' and state then return state == 'o' and 'y' or 'd' end
    if way == 's' and state ~= 'o' then
      if state == 's ' .. a[3] then return 'y' end
      return state and 'f' or 'g'
    end
  end
  for i = 5, #a, 16 do
    names[#names + 1] = a[i]
    if (call('HGET', P .. 'b:' .. a[i], 'v') or '') ~= a[i + 1] then fits = false end
  end
  if not fits then return 'n\\n' .. raws(names) end
  for i = 5, #a, 16 do
    local key = P .. 'b:' .. a[i]
    local new = {'v', text((tonumber(a[i + 1]) or 0) + 1)}
    for place, field in ipairs({'k', 'h', 'c', 'd', 'l', 'w', 'e', 'u', 'r', 'q', 'p', 'b'}) do
      local value = a[i + 1 + place]
      if value ~= '' then new[#new + 1] = field; new[#new + 1] = value end
    end
    if a[i + 15] ~= '' then new[#new + 1] = 'm'; new[#new + 1] = a[i + 15] end
    for slot, charge in string.gmatch(a[i + 14], '(%S+) (%S+)') do new[#new + 1] = 's' .. slot; new[#new + 1] = charge end
    call('DEL', key)
    call('HSET', key, unpack(new))
    call('EXPIRE', key, TTL)
  end
  if way == 'o' then call('SET', record(a[2]), 'o', 'PX', a[4]) end
  if way == 's' then call('SET', record(a[2]), 's ' .. a[3], 'PX', a[4]) end
  call('EXPIRE', P .. 'epoch', EPOCH_TTL)
  return 'y'
end

-- Changes the head of a bucket, if it is as expected, and leaves what is counted alone: name, expected, new, ceiling.
function verbs.A(a)
  forget()
  local key = P .. 'b:' .. a[1]
  if (call('HGET', key, 'h') or '') ~= a[2] then return 'n\\n' .. raw(a[1]) end
  call('HSET', key, 'h', a[3], 'c', a[4])
  call('HINCRBY', key, 'v', 1)
  call('EXPIRE', key, TTL)
  return 'y'
end

function verbs.V(a) return table.concat(call('HVALS', P .. a[1]), '\\n') end

-- Changes a note (a hold, for one), if it is as expected: table, field, expected, new.
function verbs.H(a)
  local key = P .. a[1]
  local now = call('HGET', key, a[2]) or ''
  if now ~= a[3] then return 'n\\n' .. now end
  if a[4] == '' then call('HDEL', key, a[2]) else call('HSET', key, a[2], a[4]); call('EXPIRE', key, TTL) end
  return 'y'
end

-- Does an operation for one who lost a race too often: token, ttl, verb and the rest. What it is going to change, from what it
-- read now, is left alone by others until it has; the ttl is for one who dies meanwhile.
function verbs.C(a)
  if claim and claim ~= a[1] then return 'w' end
  local mine, inner = claim, {}
  claim = false
  for i = 4, #a do inner[i - 3] = a[i] end
  local answer = verbs[a[3]](inner)
  if a[3] == 'L' or string.sub(answer, 1, 1) == 'n' then
    claim = a[1]
    call('SET', P .. 'claim', claim, 'PX', a[2])
  elseif mine then
    call('DEL', P .. 'claim')
  end
  return answer
end

local waits = {R = true, S = true, W = true, A = true}
local answers, i = {'ok ' .. clock .. ' ' .. epoch}, 4
while words[i] do
  local verb, count, a = words[i], tonumber(words[i + 1]), {}
  for j = 1, count do a[j] = words[i + 1 + j] end
  answers[#answers + 1] = claim and waits[verb] and a[3] ~= 'undo' and 'w' or verbs[verb](a)
  i = i + 2 + count
end
write()
return table.concat(answers, '\\31')
"""
