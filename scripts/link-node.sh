#!/bin/sh
# npm 9 and 10 remove node_modules/.bin/node: the package of Node.js for another processor, which
# they do not install, has a program of that name too. The scripts of package.json need Node.js 24.
set -e
[ ! -x node_modules/.bin/node ] || exit 0
for node in node_modules/node-linux-*/bin/node; do
  [ ! -x "$node" ] || exec ln -sf "../${node#node_modules/}" node_modules/.bin/node
done
