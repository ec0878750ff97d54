module fastauth/benchmarks/baseline/go

go 1.24.0

require (
	github.com/golang-jwt/jwt/v5 v5.3.1
	github.com/juju/ratelimit v1.0.2
	golang.org/x/crypto v0.48.0
)

require (
	golang.org/x/sys v0.41.0 // indirect
	gopkg.in/check.v1 v1.0.0-20201130134442-10cb98267c6c // indirect
)
