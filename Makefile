# Penstock. `make` prints the targets.
GO      ?= go
BIN     := bin/penstock
TOOL    := $(GO) tool -modfile=tools.mod
LDFLAGS := -s -w
TAGS    := grpcnotrace
# Everything is built in one way, so that it is compiled once: static and without
# the paths of this machine. Only the race detector needs another.
export CGO_ENABLED := 0
export GOFLAGS     := -trimpath -tags=$(TAGS)
FUZZTIME  ?= 10s
FUZZPROCS ?= 1 # of each target
FUZZJOBS  ?= 2 # targets at a time
FUZZDIRS  ?= . # where the targets are
CALLS     := invoke api client/http test/attack # what a call from outside goes through
# What builds programs or measures: the race detector sees nothing of the first
# and spoils the second.
ALONE := /test/crash|/test/ledger|/test/bench|/test/walkthrough|/test/contract|/cmd/penstock

.DEFAULT_GOAL := help

help: ## print the targets
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-15s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

build: ## build bin/penstock, stripped and static
	$(GO) build -ldflags '$(LDFLAGS)' -o $(BIN) ./cmd/penstock

demo: build ## run the demo until Ctrl-C: cron, webhook, folder, pipeline, app, outputs
	$(GO) build -o bin/shop ./examples/shop
	@mkdir -p .penstock/demo/inbox
	@echo "bin/penstock console prints the address of the console, in another terminal"
	$(BIN) run --app-id shop --app-port 8087 --dapr-http-port 3511 --dapr-grpc-port 0 --data-dir .penstock/demo --resources-path examples/shop/resources -- bin/shop -world

test: ## run the tests; needs only Go
	$(GO) test $$($(GO) list ./... | grep -v /penstock/test/)
	$(GO) test -count=1 ./test/... # these build the program, which go does not see
	cd test/sdk && $(GO) test -count=1 ./...

check: format vet lint house race alone ## everything that must hold before a change lands: each test once

format: ## fail when a file is not gofumpt-formatted
	@out=$$($(TOOL) gofumpt -l $$(git ls-files '*.go')); test -z "$$out" || { echo "not formatted (run make fix):"; echo "$$out"; exit 1; }

vet: ## go vet, and go fix for old idioms
	$(GO) vet ./...
	$(GO) vet -tags services,$(TAGS) ./...
	$(GO) fix -diff ./...

lint: ## staticcheck
	$(TOOL) staticcheck -tags services,$(TAGS) ./...

house: ## the project's own rules: floors, sizes, docs, modules
	$(GO) test -count=1 ./test/house

race: ## the tests with the race detector, but for those of alone and house
	CGO_ENABLED=1 $(GO) test -race -p 3 $$($(GO) list ./... | grep -vE '/penstock/test/|$(ALONE)')
	CGO_ENABLED=1 $(GO) test -race -p 3 -count=1 $$($(GO) list ./test/... | grep -vE '/test/house|$(ALONE)')

alone: ## the tests that the race detector has no part in: of the program as a whole
	$(GO) test -count=1 $$($(GO) list ./... | grep -E '$(ALONE)')
	cd test/sdk && $(GO) test -count=1 ./...

fix: ## format and modernise
	$(TOOL) gofumpt -w $$(git ls-files '*.go')
	$(GO) fix ./...

docs: ## write the component pages of docs/ from their options
	$(GO) run ./test/pages

bench: build ## measure the limits of docs/operations.md on this machine
	$(GO) run ./test/bench -penstock $(BIN)
	$(GO) run ./test/bench -penstock $(BIN) -invoke
	$(MAKE) bench-brokers bench-state

bench-brokers: ## compare with bare client loops, on real servers
	$(GO) build -o bin/services ./test/services/run
	bin/services -only redis,rabbitmq,nats,kafka $(GO) run ./test/bench -brokers

bench-state: build ## compare the state API with a bare server in front of the same drivers
	$(GO) build -o bin/services ./test/services/run
	bin/services -only redis,postgres $(GO) run ./test/bench -penstock $(BIN) -state

test-sdk: build ## run the official SDKs that need another language
	cd test/sdk/node && npm ci --no-audit --no-fund --loglevel=error && PENSTOCK=$(abspath $(BIN)) node --test
	cd test/sdk/python && python3 -m venv .venv && .venv/bin/pip install -q --disable-pip-version-check -r requirements.txt
	cd test/sdk/python && PENSTOCK=$(abspath $(BIN)) .venv/bin/python -W ignore -m unittest -b

console: ## build the console's page; the files are committed
	cd console/web && npm ci --no-audit --no-fund --loglevel=error && npx vite build --logLevel error

console-check: console ## fail when the committed page is not what its source makes
	@git diff --exit-code --stat -- console/dist && test -z "$$(git status --porcelain console/dist)"
	@test $$(tar -cz console/dist | wc -c) -le 409600 || { echo "the page has more than 400 KiB"; exit 1; }

test-console: build ## look at the console with a real browser (Debian's chromium), screenshots in SHOTS
	@command -v chromium >/dev/null || test "$$(id -u)" != 0 || apt-get install -y -q chromium >/dev/null
	cd test/console && npm ci --no-audit --no-fund --loglevel=error && PENSTOCK=$(abspath $(BIN)) node --test

test-services: ## install and start the real servers, run the tests that need them, the ledger too
	$(GO) build -o bin/services ./test/services/run
	bin/services -test

test-interop: ## let Dapr's components and ours read what the other wrote; fetches 1 GB of modules
	$(GO) build -o bin/services ./test/services/run
	bin/services -only redis,rabbitmq,kafka,nats,postgres,mysql,mongodb $(GO) test -C test/interop -count=1 -v -tags services .

crash: build ## kill -9, SIGTERM and reloads under load, at full length
	$(GO) test -count=1 -v ./test/crash -args -full

ledger: ## prove that nothing is lost: every fault with every broker, at full length
	$(GO) test -count=1 -v -timeout 60m -tags services,$(TAGS) -run 'TestLedger$$' ./test/ledger -args -full

fuzz: ## let every fuzz target look for FUZZTIME, 10s unless it is given
	@git grep -E '^func Fuzz' -- $(FUZZDIRS) | sed -nE 's|(.*)/[^/]*_test\.go:func (Fuzz[A-Za-z0-9_]*)\(.*|\1 \2|p' | \
	  xargs -P $(FUZZJOBS) -L 1 sh -c 'out=$$($(GO) test ./$$0 -run "^$$" -fuzz "^$$1$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 0s -parallel $(FUZZPROCS) 2>&1); \
	    code=$$?; printf "== %s %s\n%s\n" "$$0" "$$1" "$$(echo "$$out" | tail -n $$((code ? 40 : 2)))"; exit $$code' || { echo "a target found something, see above"; exit 1; }

fuzz-calls: ## do that with the targets of what a call from outside goes through
	@$(MAKE) fuzz FUZZDIRS="$(CALLS)"

clean: ## remove what was built
	rm -rf bin .penstock

.PHONY: help build demo test check format vet lint house race alone fix docs bench bench-brokers bench-state test-sdk console console-check test-console test-services test-interop crash ledger fuzz fuzz-calls clean
