export GIT_AUTHOR_NAME=A GIT_AUTHOR_EMAIL=a@x GIT_COMMITTER_NAME=C GIT_COMMITTER_EMAIL=c@x GIT_AUTHOR_DATE=@1700000000+0000 GIT_COMMITTER_DATE=@1700000000+0000
export GIT_CONFIG_NOSYSTEM=1 HOME=$PWD GIT_CONFIG_COUNT=2 GIT_CONFIG_KEY_0=safe.directory GIT_CONFIG_VALUE_0='*' GIT_CONFIG_KEY_1=gc.auto GIT_CONFIG_VALUE_1=0
git=/usr/bin/git
set -e
$git init -q -b main repo; cd repo
for i in 1 2 3 4 5; do mkdir -p d$i; seq $((i * 100)) > d$i/f$i; done
$git add .; $git commit -q -m first; $git log --format='%H %an %s'
echo change >> d1/f1; $git rm -q d5/f5; $git mv d2/f2 d2/g2; $git status --short; $git diff --stat; $git commit -qam second
$git checkout -q -b side HEAD~1; echo side > side; $git add side; $git commit -q -m side; $git checkout -q main; $git merge -q --no-edit side; $git log --oneline --graph
$git tag -a v1 -m tag; $git describe; $git show --stat HEAD~1 | tail -2; $git blame d1/f1 | tail -1 | cut -c1-12; $git grep -c change
$git stash list; echo wip >> side; $git stash -q; $git stash pop -q; $git checkout -q side 2>/dev/null; $git reset -q --hard main; $git fsck; $git gc -q; $git count-objects | cut -d, -f1
cd ..; $git clone -q repo clone 2>&1; $git clone -q --bare "file://$PWD/repo" bare 2>&1; cd clone; echo more > more; $git add more; $git commit -q -m more; $git push -q "file://$(dirname "$PWD")/bare" HEAD:main 2>&1; $git -C ../bare log --oneline | head -3
$git rebase -q --onto HEAD~1 HEAD 2>&1 | tail -1; $git archive HEAD | tar t | sort | head -3; $git ls-files | wc -l; $git rev-parse HEAD; $git cat-file -p HEAD | head -3; $git worktree add -q ../tree HEAD 2>&1; ls ../tree | sort; $git bisect start -q HEAD HEAD~1 2>&1 | tail -1 | cut -c1-10
