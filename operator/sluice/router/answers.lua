-- A container's answer of 400 and above becomes SageMaker's ModelError. What Envoy answers itself carries
-- x-amzn-errortype already (the router removes that header from what containers send).

-- LOG_GROUP is set in front of this file: the ARN's part that is the same for the whole namespace.

local MAX_ORIGINAL_MESSAGE = 8192

local ESCAPES = { ['"'] = '\\"', ['\\'] = '\\\\', ['\b'] = '\\b', ['\f'] = '\\f', ['\n'] = '\\n', ['\r'] = '\\r',
  ['\t'] = '\\t' }

-- The bytes of one well-formed UTF-8 character at position i, or nil.
local function character(text, i)
  local first = text:byte(i)
  if first < 0x80 then return 1 end
  local length, lowest, highest
  if first >= 0xC2 and first <= 0xDF then length, lowest, highest = 2, 0x80, 0xBF
  elseif first == 0xE0 then length, lowest, highest = 3, 0xA0, 0xBF
  elseif first == 0xED then length, lowest, highest = 3, 0x80, 0x9F
  elseif first >= 0xE1 and first <= 0xEF then length, lowest, highest = 3, 0x80, 0xBF
  elseif first == 0xF0 then length, lowest, highest = 4, 0x90, 0xBF
  elseif first >= 0xF1 and first <= 0xF3 then length, lowest, highest = 4, 0x80, 0xBF
  elseif first == 0xF4 then length, lowest, highest = 4, 0x80, 0x8F
  else return nil end
  local second = text:byte(i + 1)
  if second == nil or second < lowest or second > highest then return nil end
  for k = 2, length - 1 do
    local byte = text:byte(i + k)
    if byte == nil or byte < 0x80 or byte > 0xBF then return nil end
  end
  return length
end

-- Any bytes as the inside of a JSON string; what is not UTF-8 becomes U+FFFD.
local function escape(text)
  local out, from, i, size = {}, 1, 1, #text
  while i <= size do
    local byte = text:byte(i)
    if byte >= 0x20 and byte < 0x7F and byte ~= 0x22 and byte ~= 0x5C then
      i = i + 1
    else
      local length = byte >= 0x80 and character(text, i)
      if length then
        i = i + length
      else
        out[#out + 1] = text:sub(from, i - 1)
        local char = string.char(byte)
        if byte >= 0x80 then out[#out + 1] = '\\ufffd'
        else out[#out + 1] = ESCAPES[char] or string.format('\\u%04x', byte) end
        i = i + 1
        from = i
      end
    end
  end
  out[#out + 1] = text:sub(from)
  return table.concat(out)
end

function model_error(handle, status)
  local body = handle:body(true)
  local headers = handle:headers() -- objects from before the wait are void
  local size = body:length()
  local original
  local encoding = headers:get('content-encoding')
  if encoding ~= nil and encoding ~= 'identity' then
    original = string.format('(%d bytes, content-encoding %s)', size, encoding)
  elseif size > MAX_ORIGINAL_MESSAGE then
    original = body:getBytes(0, MAX_ORIGINAL_MESSAGE) .. string.format('... (%d bytes)', size)
  elseif size > 0 then
    original = body:getBytes(0, size)
  else
    original = ''
  end
  original = escape(original)
  local side = status >= 500 and 'server' or 'client'
  local stream = LOG_GROUP .. escape(handle:streamInfo():routeName()) .. ':log-stream:'
    .. escape(headers:get('x-amzn-invoked-production-variant') or '')
  headers:replace(':status', '424')
  headers:replace('content-type', 'application/json')
  headers:replace('x-amzn-errortype', 'ModelError')
  headers:remove('content-encoding')
  local message = string.format('Received %s error (%d) from the container with message \\"%s\\"', side, status, original)
  local text = string.format(
    '{"ErrorCode":"ModelError","Message":"%s","OriginalStatusCode":%d,"OriginalMessage":"%s","LogStreamArn":"%s"}',
    message, status, original, stream)
  body:setBytes(text)
end

function envoy_on_response(handle)
  local headers = handle:headers()
  local status = tonumber(headers:get(':status'))
  if status < 400 or headers:get('x-amzn-errortype') ~= nil then
    return
  end
  model_error(handle, status)
end
