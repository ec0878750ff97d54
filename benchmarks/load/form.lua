-- wrk script: every request is the same form, its first argument, with the Authorization header of its second.
function init(args)
   wrk.method = "POST"
   wrk.body = args[1]
   wrk.headers["Content-Type"] = "application/x-www-form-urlencoded"
   wrk.headers["Authorization"] = args[2]
end
