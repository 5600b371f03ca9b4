# What POSIX shells do: pipelines, here-documents, substitutions, redirections, subshells, traps, background jobs.
x=5
echo $((x * 7)) "${x:-none}" "${y:-none}" "${x#5}"
seq 1 1000 | grep 7 | sed 's/7/seven/' | sort -r | head -3
cat <<END | tr a-z A-Z
here document $x
  $(echo nested)
END
cat <<'END' > file
not $expanded
END
cat < file; wc -l < file | tr -d ' '
for i in 1 2 3; do echo $i; done | while read n; do echo "line $n"; done
(cd /usr && pwd); cd / && pwd && cd "$OLDPWD"
f() { echo "function $1 of $#"; return 3; }
f a b; echo $?
false || echo or; true && echo and
! true; echo $?
sh -c 'exit 9'; echo $?
echo out 2>&1 >&2 2>/dev/null; { echo a; echo b >&2; } 2>&1 | cat
sleep 0.05 & wait $!; echo waited $?
sh -c 'kill -TERM $$'; echo $?
trap 'echo trapped' USR1; kill -USR1 $$; trap - USR1
trap 'echo leaving' EXIT
case abc in a*) echo starts with a ;; *) echo no ;; esac
echo *.none; touch b.txt a.txt; echo *.txt
set -- one "two three"; for a in "$@"; do echo "[$a]"; done
printf '%s %05d %x\n' text 42 255
[ -f file ] && test -d . && [ ! -e nothing ] && echo tests
echo appended >> file; tail -1 file
nothing-there 2>/dev/null; echo $?
cat nothing-there 2>&1 | head -1
yes | head -100000 | wc -l | tr -d ' '
exec 3> three; echo to three >&3; exec 3>&-; cat three
read a b <<END
first second third
END
echo "$b,$a"
i=0; while [ $i -lt 50 ]; do i=$((i + 1)); done; echo $i
find . -name '*.txt' | sort | xargs -n1 echo found
(sleep 0.02; exit 5) & pid=$!; wait $pid; echo $?
awk 'BEGIN { for (i = 0; i < 3; i++) print i * i; "echo cmd" | getline x; print x }'
