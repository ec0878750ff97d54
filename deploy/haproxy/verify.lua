-- Asks fastauth whether a request has a good access token. If so it gets X-Auth-Subject and X-Auth-Scope and txn.verified;
-- if not, the client gets fastauth's own answer. HAProxy without Lua cannot ask, or only through an agent (SPOE).

local address = os.getenv("VERIFY")
local passed_back = { "www-authenticate", "content-type", "retry-after", "cache-control" }

local function first(headers, name)
    local values = headers and headers[name]
    return values and values[0]
end

core.register_action("verify", { "http-req" }, function(txn)
    local headers = { ["host"] = { "fastauth" }, ["x-forwarded-for"] = { txn.sf:src() } }
    local sent = txn.http:req_get_headers()["authorization"]
    if sent ~= nil then
        headers["authorization"] = {}
        for _, value in pairs(sent) do -- one that was sent twice is fastauth's to refuse
            table.insert(headers["authorization"], value)
        end
    end
    local answer = core.httpclient():get({ url = "http://" .. address .. "/verify", headers = headers, timeout = 2000 })
    local subject = first(answer.headers, "x-auth-subject")
    if answer.status == 200 and subject ~= nil then
        txn.http:req_set_header("X-Auth-Subject", subject)
        txn.http:req_set_header("X-Auth-Scope", first(answer.headers, "x-auth-scope") or "")
        txn:set_var("txn.verified", true)
        return
    end
    if answer.status == nil or answer.status < 400 then
        return -- no answer, or none that means anything: haproxy.cfg refuses what is not verified
    end
    local reply = txn:reply({ status = answer.status, body = answer.body or "" })
    for _, name in ipairs(passed_back) do
        local value = first(answer.headers, name)
        if value ~= nil then
            reply:add_header(name, value)
        end
    end
    txn:done(reply)
end, 0)
