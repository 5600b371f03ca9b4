set -e
cat > hello.c <<'END'
#include <stdio.h>
#include "other.h"
int main(void) { printf("hello from %d\n", other(20)); return other(1) - 2; }
END
cat > other.c <<'END'
#include "other.h"
int other(int n) { return n * 2; }
END
echo 'int other(int);' > other.h
gcc -O2 -Wall -c hello.c other.c
gcc -pipe -o hello hello.o other.o; ./hello
ar rcs libother.a other.o; gcc -static -o static hello.c -L. -lother; ./static
gcc -shared -fPIC -o libo.so other.c; gcc -o dynamic hello.c -L. -lo; LD_LIBRARY_PATH=. ./dynamic
size hello.o | tail -1 | awk '{print ($4 > 0)}'; nm hello.o | grep ' T '; objdump -d other.o | grep -c ret; strip hello; ./hello
echo 'int main(void) { return x; }' > bad.c; gcc bad.c 2>/dev/null || echo refused
echo 'all: made
made: other.c
	gcc -o $@ -DMAIN hello.c other.c' > Makefile; make -s 2>/dev/null && ./made || ./hello
