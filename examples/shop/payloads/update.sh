#!/bin/sh
# Takes the example payloads of GitHub's webhooks out of the npm package
# @octokit/webhooks-examples (MIT) and writes them beside this script.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
cd "$tmp"
npm pack --silent @octokit/webhooks-examples@7.6.1 >/dev/null
tar xzf ./*.tgz
node - "$here" <<'JS'
const fs = require("fs");
const all = require(process.cwd() + "/package/api.github.com/index.json");
const want = { push: (e) => e.ref.startsWith("refs/heads/"), pull_request: (e) => e.action === "opened", release: (e) => e.action === "published", issues: (e) => e.action === "opened", ping: () => true };
for (const { name, examples } of all) {
  const found = want[name] && examples.find(want[name]);
  if (found) fs.writeFileSync(`${process.argv[2]}/${name}.json`, JSON.stringify(found, null, 2) + "\n");
}
JS
