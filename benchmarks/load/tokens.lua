-- wrk script: every request carries the next token of the file named by its first argument, from the one after that
-- many (second argument, 0 without) on.
local tokens, position = {}, 0

function init(args)
   for token in io.lines(args[1]) do
      tokens[#tokens + 1] = wrk.format("GET", nil, { ["Authorization"] = "Bearer " .. token })
   end
   position = tonumber(args[2] or 0)
end

function request()
   position = position % #tokens + 1
   return tokens[position]
end
