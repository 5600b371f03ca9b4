set -e
export HOME=$PWD npm_config_cache=$PWD/cache npm_config_update_notifier=false npm_config_offline=true npm_config_fund=false npm_config_audit=false
cd app
npm install --no-progress --loglevel=error ../one-1.2.3.tgz ../two-0.1.0.tgz | sed 's/ in .*//'
ls node_modules | sort; ls node_modules/two | wc -l; node_modules/.bin/one
npm run --silent start
npm ls --parseable --depth=0 | wc -l
npm uninstall --loglevel=error two | sed 's/ in .*//'; ls node_modules; cat package.json | wc -l
