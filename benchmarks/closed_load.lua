-- What wrk sends to /v1/classify and makes of the answers; closed_load.py's. Arguments: a file of bodies, one a line, and how
-- many texts stand in each.

local PATH, NO_ERROR = "/v1/classify", '"error":null' -- stands once for each text that was answered
local bodies, place, wanted = {}, 0, 0
local threads = {}
without_answer = 0 -- global, as what `done` reads out of a thread has to be

function setup(thread)
  threads[#threads + 1] = thread
end

function init(arguments)
  wanted = tonumber(arguments[2])
  for body in io.lines(arguments[1]) do
    bodies[#bodies + 1] = wrk.format("POST", PATH, { ["Content-Type"] = "application/json" }, body)
  end
end

function request()
  place = place % #bodies + 1
  return bodies[place]
end

function response(status, headers, body)
  local _, answered = body:gsub(NO_ERROR, NO_ERROR)
  if status ~= 200 or answered ~= wanted then
    without_answer = without_answer + 1
  end
end

function done(summary, latency)
  local broken = summary.errors.connect + summary.errors.read + summary.errors.write -- which wrk does not count as requests
  local failed = broken + summary.errors.timeout
  for _, thread in ipairs(threads) do
    failed = failed + thread:get("without_answer")
  end
  local line = '{"requests":%d,"errors":%d,"seconds":%.6f,"ms":{"p50":%.1f,"p90":%.1f,"p99":%.1f,"max":%.1f}}\n'
  local ms = {}
  for _, share in ipairs({ 50, 90, 99 }) do
    ms[#ms + 1] = latency:percentile(share) / 1000
  end
  io.write(line:format(summary.requests + broken, failed, summary.duration / 1e6, ms[1], ms[2], ms[3], latency.max / 1000))
end
