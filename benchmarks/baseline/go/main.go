// The baseline in Go: the "scalable auth server" that articles build from net/http, golang-jwt and juju/ratelimit, as
// good as its users would make it: every timeout set, one RSA key and one parser shared by all requests, no lock of its
// own (the bucket has one inside), JSON written in one piece with its length, and a graceful end.
//
// POST /auth takes a token from one bucket, checks a password and answers with an RS256 token that is valid for an
// hour; GET /validate checks such a token and answers with its claims; GET /hello does nothing and shows what net/http
// alone can do; GET /token prints a token that /validate accepts.
//
// What it deliberately does not do, because those articles do not: it stores nothing and, unless -argon2 is given,
// hashes nothing; there is no queue in front of the hash, so every request under way holds 19 MiB of its own; a user
// that does not exist is refused sooner than a wrong password; one bucket serves all clients; nothing is revoked,
// refreshed, rotated, logged or counted; no token is remembered, each is verified anew.
package main

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log"
	"net"
	"net/http"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/juju/ratelimit"
	"golang.org/x/crypto/argon2"
)

const (
	issuer   = "http://127.0.0.1"
	lifetime = time.Hour
	maxBody  = 64 << 10

	maxHeader = 16 << 10
)

var users = map[string]string{"admin": "correct horse battery staple"}

type claims struct {
	Scope string `json:"scope"`
	jwt.RegisteredClaims
}

// tokens issues and checks; its key and its parser are never written again, so requests share them without a lock.
type tokens struct {
	key    *rsa.PrivateKey
	parser *jwt.Parser
}

func newTokens() (*tokens, error) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return nil, err
	}
	parser := jwt.NewParser(
		jwt.WithValidMethods([]string{jwt.SigningMethodRS256.Alg()}),
		jwt.WithIssuer(issuer),
		jwt.WithAudience(issuer),
		jwt.WithExpirationRequired(),
	)
	return &tokens{key, parser}, nil
}

func (t *tokens) issue(username string) (string, error) {
	now := time.Now()
	return jwt.NewWithClaims(jwt.SigningMethodRS256, &claims{
		Scope: "user",
		RegisteredClaims: jwt.RegisteredClaims{
			Issuer:    issuer,
			Subject:   username,
			Audience:  jwt.ClaimStrings{issuer},
			IssuedAt:  jwt.NewNumericDate(now),
			ExpiresAt: jwt.NewNumericDate(now.Add(lifetime)),
		},
	}).SignedString(t.key)
}

func (t *tokens) check(text string) (*claims, error) {
	found := &claims{}
	_, err := t.parser.ParseWithClaims(text, found, func(*jwt.Token) (any, error) { return &t.key.PublicKey, nil })
	return found, err
}

// passwordCheck says whether a user has this password.
type passwordCheck func(username, password string) bool

func checkPlain(username, password string) bool {
	stored, known := users[username]
	return known && subtle.ConstantTimeCompare([]byte(stored), []byte(password)) == 1
}

// argon2Check hashes the passwords once, at start, and compares hashes from then on.
func argon2Check() passwordCheck {
	type stored struct{ salt, hash []byte }
	hashes := make(map[string]stored, len(users))
	for username, password := range users {
		salt := make([]byte, 16)
		rand.Read(salt) // never fails: since Go 1.24 it ends the process instead
		hashes[username] = stored{salt, argon2id(password, salt)}
	}
	return func(username, password string) bool {
		user, known := hashes[username]
		return known && subtle.ConstantTimeCompare(user.hash, argon2id(password, user.salt)) == 1
	}
}

func argon2id(password string, salt []byte) []byte {
	return argon2.IDKey([]byte(password), salt, 2, 19<<10, 1, 32)
}

type server struct {
	tokens *tokens
	check  passwordCheck
	bucket *ratelimit.Bucket
}

func (s *server) auth(w http.ResponseWriter, r *http.Request) {
	if s.bucket.TakeAvailable(1) == 0 {
		writeError(w, http.StatusTooManyRequests, "too many requests")
		return
	}
	var login struct {
		Username string `json:"username"`
		Password string `json:"password"`
	}
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBody)).Decode(&login); err != nil {
		writeError(w, http.StatusBadRequest, "invalid request body")
		return
	}
	if !s.check(login.Username, login.Password) {
		writeError(w, http.StatusUnauthorized, "invalid username or password")
		return
	}
	token, err := s.tokens.issue(login.Username)
	if err != nil {
		writeError(w, http.StatusInternalServerError, "could not sign the token")
		return
	}
	writeJSON(w, http.StatusOK, struct {
		Token string `json:"token"`
	}{token})
}

func (s *server) validate(w http.ResponseWriter, r *http.Request) {
	text, found := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	if !found {
		writeError(w, http.StatusUnauthorized, "missing token")
		return
	}
	claims, err := s.tokens.check(text)
	if err != nil {
		writeError(w, http.StatusUnauthorized, err.Error())
		return
	}
	writeJSON(w, http.StatusOK, claims)
}

func (s *server) hello(w http.ResponseWriter, _ *http.Request) {
	write(w, http.StatusOK, "text/plain; charset=utf-8", []byte("hello"))
}

func (s *server) token(w http.ResponseWriter, _ *http.Request) {
	token, err := s.tokens.issue("somebody")
	if err != nil {
		writeError(w, http.StatusInternalServerError, "could not sign the token")
		return
	}
	write(w, http.StatusOK, "text/plain; charset=utf-8", []byte(token))
}

func writeError(w http.ResponseWriter, status int, message string) {
	writeJSON(w, status, struct {
		Error string `json:"error"`
	}{message})
}

func writeJSON(w http.ResponseWriter, status int, value any) {
	body, err := json.Marshal(value)
	if err != nil {
		http.Error(w, "could not write the answer", http.StatusInternalServerError)
		return
	}
	write(w, status, "application/json", body)
}

func write(w http.ResponseWriter, status int, contentType string, body []byte) {
	w.Header().Set("Content-Type", contentType)
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(status)
	w.Write(body) // a client that is gone is no concern of the handler
}

func (s *server) routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /auth", s.auth)
	mux.HandleFunc("GET /validate", s.validate)
	mux.HandleFunc("GET /hello", s.hello)
	mux.HandleFunc("GET /token", s.token)
	return mux
}

// serve answers until SIGTERM or SIGINT, then ends what is under way and returns nil.
func serve(port int, handler http.Handler) error {
	stopping, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	listener, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
	if err != nil {
		return err
	}
	server := &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       10 * time.Second,
		WriteTimeout:      10 * time.Second,
		IdleTimeout:       60 * time.Second,
		MaxHeaderBytes:    maxHeader,
	}
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(listener) }()
	fmt.Printf("ready on http://%s\n", listener.Addr())
	select {
	case err := <-failed:
		return err
	case <-stopping.Done():
		ending, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		return server.Shutdown(ending)
	}
}

func run() error {
	port := flag.Int("port", 8080, "port of 127.0.0.1 to listen on; 0 takes a free one")
	rate := flag.Float64("rate", 1e6, "logins a second that the bucket lets through")
	burst := flag.Int64("burst", 1e6, "logins that a full bucket lets through at once")
	hashed := flag.Bool("argon2", false, "check argon2id hashes (19 MiB, 2 passes, 1 lane) instead of plain passwords")
	flag.Parse()
	if *rate <= 0 || *burst <= 0 {
		return errors.New("-rate and -burst must be above 0")
	}
	tokens, err := newTokens()
	if err != nil {
		return err
	}
	check := passwordCheck(checkPlain)
	if *hashed {
		check = argon2Check()
	}
	return serve(*port, (&server{tokens, check, ratelimit.NewBucketWithRate(*rate, *burst)}).routes())
}

func main() {
	if err := run(); err != nil {
		log.Fatal(err)
	}
}
