# What bash adds: arrays, process substitution, coprocesses, job control, read timeouts, regular expressions, pipefail.
a=(one two three); a+=(four); echo "${a[@]:1:2}" "${#a[@]}" "${!a[@]}"
declare -A m=([x]=1 [y]=2); for k in $(printf '%s\n' "${!m[@]}" | sort); do echo "$k=${m[$k]}"; done
diff <(seq 1 5) <(seq 2 6); echo $?
wc -l < <(seq 100)
cat <<< "here string ${a[0]^^}"
coproc C { while read -r l; do echo "co $l"; done; }
echo hi >&"${C[1]}"; read -r r <&"${C[0]}"; echo "$r"; kill "$C_PID"; wait "$C_PID" 2>/dev/null; echo $?
[[ abc123 =~ ([a-z]+)([0-9]+) ]] && echo "${BASH_REMATCH[2]} ${BASH_REMATCH[1]}"
set -o pipefail; false | true; echo $? "${PIPESTATUS[@]}"; set +o pipefail
false | true | false; echo "${PIPESTATUS[@]}"
for ((i = 0; i < 3; i++)); do printf '%d ' $i; done; echo
echo {a..e} {1..10..3} pre{x,y}post
s=hello.tar.gz; echo "${s%.*} ${s%%.*} ${s#*.} ${s/l/L} ${s//l/L} ${#s} ${s:1:3}"
sleep 60 & sleep 60 & jobs | wc -l; kill %1 %2; wait; echo "$(jobs -r | wc -l)"
set -m; sleep 0.02 & fg %1 >/dev/null; echo $?; set +m
read -t 0.05 -r x < <(sleep 0.2); echo $?
trap 'echo chld' CHLD; /bin/true; trap - CHLD
f() { local x=1; trap 'echo returned' RETURN; x=2; }; f; trap - RETURN
mapfile -t lines < <(seq 3); echo "${#lines[@]}"
printf -v v '%05.1f' 3.14159; echo "$v"
time -p true 2>/dev/null; echo "$(( 2 ** 40 )) $(( 0xff ^ 16#0f ))"
exec {fd}> out; echo text >&"$fd"; exec {fd}>&-; cat out
x=$(cat <<END
$(for i in 1 2; do echo "n $i"; done | tac)
END
); echo "$x"
(ulimit -n 64; ulimit -n); echo $BASHPID | grep -c '[0-9]'
shopt -s extglob nullglob globstar
mkdir -p d/e/f; touch d/1.c d/e/2.c d/e/f/3.h; echo **/*.@(c|h) x*
(exit 42); echo $?; bash -c 'kill -9 $$'; echo $?
ls /dev/fd/ | head -3 | wc -l; echo redirect > >(cat); wait
cat /proc/self/comm; echo "$(< /proc/sys/kernel/ostype)"
