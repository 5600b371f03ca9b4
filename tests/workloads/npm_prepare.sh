# Two packages as tarballs, one with a command.
set -e
export HOME=$PWD npm_config_cache=$PWD/cache npm_config_update_notifier=false
mkdir -p one/bin two app
printf '{"name":"one","version":"1.2.3","main":"index.js","bin":{"one":"bin/one.js"}}' > one/package.json
echo 'module.exports = (n) => n + 1;' > one/index.js
printf '#!/usr/bin/env node\nconsole.log("one says", require("..")(41));\n' > one/bin/one.js
printf '{"name":"two","version":"0.1.0","main":"index.js"}' > two/package.json
echo 'module.exports = "two";' > two/index.js
for i in $(seq 60); do seq $i > two/file$i.txt; done
npm pack --silent ./one ./two > /dev/null
rm -rf cache one two .npm
echo '{"name":"app","version":"1.0.0","scripts":{"start":"one && node start.js"}}' > app/package.json
echo 'console.log(require("two"));' > app/start.js
