# Applets as programs of their own.
B=/usr/bin/busybox
$B seq 1 500 | $B grep 5 | $B sort -rn | $B head -2
$B cat <<END | $B tr a-z A-Z
here $($B echo nested)
END
$B mkdir -p d/e && $B cp $B d/e/copy && $B ls d/e && $B cmp $B d/e/copy && $B echo same
$B md5sum d/e/copy | $B cut -c1-4 | $B wc -c
$B printf 'b\na\nc\n' > list; $B sort list | $B tac | $B paste -s -d ,
$B find d -type f | $B xargs $B basename
$B tar cf a.tar d && $B gzip a.tar && $B tar tzf a.tar.gz
$B awk '{ s += $1 } END { print s }' <<END
1
2
3
END
$B sed -i s/a/z/ list; $B cat list
$B ln -s list link; $B readlink link; $B stat -c '%F %s' list
$B sh -c 'exit 3'; $B echo $?
$B dd if=/dev/zero of=zeros bs=1k count=64 2>/dev/null; $B wc -c < zeros
$B sleep 0.01 & wait; $B echo waited
$B expr 6 '*' 7; $B test -d d && $B echo dir
$B rm -r d; $B ls -1 | $B wc -l
$B ps | $B grep -c busybox | $B sed 's/[0-9]*/counted/'
$B vi --help 2>&1 | $B head -1 | $B cut -c1-7
