-- wrk sends the images that a file lists, one image a request, as multipart/form-data: wrk ... -s load.lua URL -- LIST

local requests, turn = {}, 0
local boundary = "thirtytwo-benchmark"

function init(args)
  local headers = { ["Content-Type"] = "multipart/form-data; boundary=" .. boundary }
  for path in io.lines(args[1]) do
    local file = assert(io.open(path, "rb"))
    local kind = path:sub(-4) == ".png" and "image/png" or "image/jpeg"
    local name = path:match("[^/]+$")
    local body = "--" .. boundary .. '\r\nContent-Disposition: form-data; name="files"; filename="' .. name
      .. '"\r\nContent-Type: ' .. kind .. "\r\n\r\n" .. file:read("*a") .. "\r\n--" .. boundary .. "--\r\n"
    file:close()
    requests[#requests + 1] = wrk.format("POST", nil, headers, body)
  end
end

function request()
  turn = turn % #requests + 1
  return requests[turn]
end
