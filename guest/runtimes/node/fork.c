/* fork.node: what JavaScript cannot do for itself in a sandbox that is forked with its memory. Needs neither libc nor headers.
 *
 * - OpenSSL's generators keep a state that every fork would inherit (they look for a new process id, and a fork of a sandbox has the
 *   same). They are replaced, in every thread at once, by getrandom(2), which the guest kernel reseeds at each fork.
 * - exports.page is memory that a fork wipes (MADV_WIPEONFORK): a program that puts a mark there can tell that it was forked.
 * - exports.openssl says whether this OpenSSL let itself be told.
 */

typedef unsigned long size;
typedef struct env *napi_env;
typedef struct value *napi_value;

extern int napi_create_external_arraybuffer(napi_env, void *, size, void *, void *, napi_value *);
extern int napi_get_boolean(napi_env, _Bool, napi_value *);
extern int napi_set_named_property(napi_env, napi_value, const char *, napi_value);

struct method {
	int (*seed)(const void *, int);
	int (*bytes)(unsigned char *, int);
	void (*cleanup)(void);
	int (*add)(const void *, int, double);
	int (*pseudorand)(unsigned char *, int);
	int (*status)(void);
};
extern int RAND_set_rand_method(const struct method *) __attribute__((weak));

static long call(long number, long a, long b, long c, long d, long e, long f)
{
	register long r10 __asm__("r10") = d;
	register long r8 __asm__("r8") = e;
	register long r9 __asm__("r9") = f;
	long result;

	__asm__ volatile("syscall" : "=a"(result) : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9) : "rcx", "r11", "memory");
	return result;
}

enum { SYS_mmap = 9, SYS_munmap = 11, SYS_madvise = 28, SYS_getrandom = 318, EINTR = 4, WIPE_ON_FORK = 18, PAGE = 4096 };

static int bytes(unsigned char *to, int n)
{
	while (n > 0) {
		long got = call(SYS_getrandom, (long)to, n, 0, 0, 0, 0);

		if (got == -EINTR)
			continue;
		if (got <= 0)
			return 0;
		to += got;
		n -= (int)got;
	}
	return 1;
}

static int seed(const void *from, int n) { return from != 0 || n >= 0; }
static int add(const void *from, int n, double entropy) { return seed(from, n) && entropy >= 0; }
static int status(void) { return 1; }

static const struct method kernel = { seed, bytes, 0, add, bytes, status };

__attribute__((visibility("default"))) int node_api_module_get_api_version_v1(void) { return 8; }

__attribute__((visibility("default"))) napi_value napi_register_module_v1(napi_env env, napi_value exports)
{
	napi_value page, openssl;
	/* PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS; one for each thread that loads this, and never unmapped. */
	long at = call(SYS_mmap, 0, PAGE, 3, 0x22, -1, 0);

	if (at > 0 || at < -4095) {
		if (call(SYS_madvise, at, PAGE, WIPE_ON_FORK, 0, 0, 0) != 0)
			call(SYS_munmap, at, PAGE, 0, 0, 0, 0);
		else if (napi_create_external_arraybuffer(env, (void *)at, PAGE, 0, 0, &page) == 0)
			napi_set_named_property(env, exports, "page", page);
	}
	if (napi_get_boolean(env, RAND_set_rand_method && RAND_set_rand_method(&kernel) == 1, &openssl) == 0)
		napi_set_named_property(env, exports, "openssl", openssl);
	return exports;
}
