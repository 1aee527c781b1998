-- InvokeEndpointWithResponseStream: each chunk of the container's answer becomes PayloadPart messages of AWS' event
-- stream (lengths, CRC-32 of the prelude, headers, payload, CRC-32 of the message), as soon as it arrives.
-- Stands behind answers.lua, whose model_error it uses for answers of 400 and above.

local bit = require('bit')
local ffi = require('ffi')
local band, bxor, rshift = bit.band, bit.bxor, bit.rshift

local MAX_PAYLOAD = 65536

-- CRC-32 (IEEE), eight bytes at a time. Each table is an object of its own: a part of a larger one would not keep the
-- whole alive.
local TABLES = {}
for k = 0, 7 do TABLES[k] = ffi.new('int32_t[256]') end
for n = 0, 255 do
  local c = n
  for _ = 1, 8 do
    if band(c, 1) == 1 then c = bxor(0xEDB88320, rshift(c, 1)) else c = rshift(c, 1) end
  end
  TABLES[0][n] = c
end
for n = 0, 255 do
  local c = TABLES[0][n]
  for k = 1, 7 do
    c = bxor(TABLES[0][band(c, 0xFF)], rshift(c, 8))
    TABLES[k][n] = c
  end
end
local T0, T1, T2, T3, T4, T5, T6, T7 = TABLES[0], TABLES[1], TABLES[2], TABLES[3], TABLES[4], TABLES[5], TABLES[6],
  TABLES[7]

local function crc_add(crc, text)
  local bytes = ffi.cast('const uint8_t*', text)
  local i, size = 0, #text
  crc = bit.bnot(crc)
  while size - i >= 8 do
    local a = bxor(crc, bit.bor(bytes[i], bit.lshift(bytes[i + 1], 8), bit.lshift(bytes[i + 2], 16),
      bit.lshift(bytes[i + 3], 24)))
    crc = bxor(
      bxor(T7[band(a, 0xFF)], T6[band(rshift(a, 8), 0xFF)], T5[band(rshift(a, 16), 0xFF)], T4[rshift(a, 24)]),
      bxor(T3[bytes[i + 4]], T2[bytes[i + 5]], T1[bytes[i + 6]], T0[bytes[i + 7]]))
    i = i + 8
  end
  while i < size do
    crc = bxor(T0[band(bxor(crc, bytes[i]), 0xFF)], rshift(crc, 8))
    i = i + 1
  end
  return bit.bnot(crc)
end

local function u32(value)
  return string.char(band(rshift(value, 24), 0xFF), band(rshift(value, 16), 0xFF), band(rshift(value, 8), 0xFF),
    band(value, 0xFF))
end

local function header(name, value)
  return string.char(#name) .. name .. '\7' .. string.char(rshift(#value, 8), band(#value, 0xFF)) .. value
end

local PART = header(':message-type', 'event') .. header(':event-type', 'PayloadPart')
  .. header(':content-type', 'application/octet-stream')

local function message(headers, payload)
  local prelude = u32(16 + #headers + #payload) .. u32(#headers)
  local check = u32(crc_add(0, prelude))
  local crc = crc_add(crc_add(crc_add(crc_add(0, prelude), check), headers), payload)
  return prelude .. check .. headers .. payload .. u32(crc)
end

local function parts(payload)
  if #payload <= MAX_PAYLOAD then return message(PART, payload) end
  local out = {}
  for from = 1, #payload, MAX_PAYLOAD do
    out[#out + 1] = message(PART, payload:sub(from, from + MAX_PAYLOAD - 1))
  end
  return table.concat(out)
end

function envoy_on_response(handle)
  local headers = handle:headers()
  local status = tonumber(headers:get(':status'))
  if headers:get('x-amzn-errortype') ~= nil then
    return
  end
  if status >= 400 then
    model_error(handle, status)
    return
  end
  headers:replace('x-amzn-sagemaker-content-type', headers:get('content-type') or 'application/octet-stream')
  headers:replace('content-type', 'application/vnd.amazon.eventstream')
  headers:remove('content-length')
  for chunk in handle:bodyChunks() do
    local size = chunk:length()
    if size > 0 then
      chunk:setBytes(parts(chunk:getBytes(0, size)))
    end
  end
end
