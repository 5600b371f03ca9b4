// One instruction or memory access that a program may not do, chosen by name. `list` prints the names whose outcome must be the same
// everywhere, `list-loose` those where only survival counts. With `caught` as second argument a handler prints what the signal said.
#define _GNU_SOURCE
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

static uintptr_t expected;      // si_addr that the case is about, where it is not a constant
static char alternate[65536];

static void say(const char *format, uintptr_t a, uintptr_t b, uintptr_t c) {
    char line[200];
    int n = snprintf(line, sizeof line, format, a, b, c);
    if (write(1, line, n) != n) _exit(99);
}

static void handler(int signal, siginfo_t *info, void *context) {
    greg_t *regs = ((ucontext_t *)context)->uc_mcontext.gregs;
    uintptr_t address = (uintptr_t)info->si_addr;
    say("signal %ld code %ld trap %ld ", signal, info->si_code, regs[REG_TRAPNO]);
    if (expected && address - expected < 4096) say("address expected+%ld\n", address - expected, 0, 0);
    else if (address == (uintptr_t)regs[REG_RIP] && address) say("address rip\n", 0, 0, 0);
    else say("address %#lx\n", address, 0, 0);
    _exit(signal);
}

// Functions of their own, reached through the table, so that the registers a call may change are free in them.
#define OP(name, text) \
    static void op_##name(void) { asm volatile(text); }

OP(out, "out %al, $0x80") OP(out_dx, "mov $0x3f8, %edx; out %eax, %dx") OP(in, "in $0x60, %al")
OP(outs, "push %rsi; lea -64(%rsp), %rsi; mov $0x80, %edx; outsb; pop %rsi") OP(hlt, "hlt") OP(cli, "cli") OP(sti, "sti")
OP(rdmsr, "mov $0xc0000082, %ecx; rdmsr") OP(wrmsr, "mov $0xc0000082, %ecx; xor %eax, %eax; wrmsr")
OP(lgdt, "lgdt -32(%rsp)") OP(lidt, "lidt -32(%rsp)") OP(ltr, "mov $8, %eax; ltr %ax") OP(lldt, "xor %eax, %eax; lldt %ax")
OP(clts, "clts") OP(invd, "invd") OP(wbinvd, "wbinvd") OP(invlpg, "invlpg (%rsp)") OP(read_cr0, "mov %cr0, %rax")
OP(write_cr0, "xor %eax, %eax; mov %rax, %cr0") OP(write_cr3, "xor %eax, %eax; mov %rax, %cr3") OP(write_cr4, "mov %rax, %cr4")
OP(read_dr7, "mov %dr7, %rax") OP(write_dr7, "xor %eax, %eax; mov %rax, %dr7") OP(swapgs, "swapgs") OP(sysretq, "sysretq")
OP(xsetbv, "xor %ecx, %ecx; mov $7, %eax; xor %edx, %edx; xsetbv") OP(xgetbv_bad, "mov $99, %ecx; xgetbv") OP(ud2, "ud2")
OP(int3, "int3") OP(into_like, "int $4") OP(iret_null, "push $0; push $0; push $2; push $0; push $0; iretq")
OP(iret_kernel, "mov %rsp, %rax; push $0x18; push %rax; push $2; push $0x10; lea 1f(%rip), %rax; push %rax; iretq; 1:")
OP(iret_garbage, "mov %rsp, %rax; push $0xfff3; push %rax; push $2; push $0xffeb; lea 1f(%rip), %rax; push %rax; iretq; 1:")
OP(lret_bad, "push $0xff3; lea 1f(%rip), %rax; push %rax; lretq; 1:")
OP(lret_null, "push $0; lea 1f(%rip), %rax; push %rax; lretq; 1:")
OP(nt_iret, "pushfq; orq $0x4000, (%rsp); popfq; mov %rsp, %rax; push $0x2b; push %rax; push $2; push $0x33; "
            "lea 1f(%rip), %rax; push %rax; iretq; 1:")
OP(load_ds_bad, "mov $0xfff3, %eax; mov %eax, %ds") OP(load_fs_bad, "mov $0xffb, %eax; mov %eax, %fs")
OP(load_ss_null, "xor %eax, %eax; mov %eax, %ss") OP(divide_by_zero, "xor %ecx, %ecx; mov $1, %eax; cltd; idiv %ecx")
OP(divide_overflow, "mov $0x80000000, %eax; cltd; mov $-1, %ecx; idiv %ecx")
OP(mxcsr_reserved, "movl $0xffff0000, -8(%rsp); ldmxcsr -8(%rsp)")
OP(single_step, "pushfq; orq $0x100, (%rsp); popfq; nop; nop")
OP(jump_noncanonical, "mov $0x8000000000000000, %rax; jmp *%rax") OP(jump_null, "xor %eax, %eax; jmp *%rax")
OP(jump_kernel, "mov $0xffffffff81000000, %rax; jmp *%rax")
OP(return_noncanonical, "mov $0x1234567800000000, %rax; push %rax; ret") OP(push_at_zero, "xor %esp, %esp; push %rax")
OP(push_noncanonical, "mov $0x8000000000001000, %rsp; push %rax") OP(lock_bad, ".byte 0xf0, 0x90")
OP(long_instruction, ".byte 0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x90")
OP(wrfsbase_bad, "mov $0x8000000000000000, %rax; wrfsbase %rax") OP(wrgsbase_bad, "mov $0x8000000000000000, %rax; wrgsbase %rax")
OP(movaps_unaligned, "lea 1(%rsp), %rax; movaps (%rax), %xmm0") OP(gs_read, "mov %gs:0, %rax")
// These depend on the processor, on what is below it, or on parts of Linux that are left out (32-bit code).
OP(vmcall, "vmcall") OP(vmmcall, "vmmcall") OP(vmlaunch, "vmlaunch") OP(vmxoff, "vmxoff") OP(sysenter, "mov $20, %eax; sysenter")
OP(sgdt, "sgdt -32(%rsp)") OP(sidt, "sidt -32(%rsp)") OP(sldt, "sldt %eax") OP(str, "str %eax") OP(smsw, "smsw %eax")
OP(rdpmc, "xor %ecx, %ecx; rdpmc") OP(monitor, "lea (%rsp), %rax; xor %ecx, %ecx; xor %edx, %edx; monitor")
OP(mwait, "xor %eax, %eax; xor %ecx, %ecx; mwait") OP(rsm, "rsm") OP(icebp, ".byte 0xf1") OP(lar, "mov $0x10, %ecx; lar %ecx, %eax")
OP(int80, "mov $20, %eax; int $0x80") OP(vsyscall, "mov $0xffffffffff600000, %rax; xor %edi, %edi; xor %esi, %esi; call *%rax")
OP(far_jump_32, "push $0x23; lea 1f(%rip), %rax; push %rax; lretq; 1: ud2") OP(umwait, ".byte 0xf2,0x0f,0xae,0xf0")
OP(alignment_check, "pushfq; orq $0x40000, (%rsp); popfq; mov -31(%rsp), %rax")
OP(load_ds_kernel, "mov $0x10, %eax; mov %eax, %ds") OP(tpause, ".byte 0x66,0x0f,0xae,0xf1") OP(sysexit, "sysexitl")
OP(syscall_trap, "pushfq; orq $0x100, (%rsp); popfq; mov $39, %eax; syscall; nop")
OP(segment_limits, "push %rbx; mov $65535, %ebx; 1: lsl %ebx, %eax; verr %bx; verw %bx; lar %ebx, %eax; dec %ebx; jnz 1b; pop %rbx")

static void op_cpuid(void) {
    unsigned a = 0, b, c, d;
    asm volatile("cpuid" : "+a"(a), "=b"(b), "=c"(c), "=d"(d));
    say("%#lx %#lx %#lx\n", b, c, d);
}
static void sse(unsigned unmask, double a, double b, int multiply) {
    unsigned csr;
    asm volatile("stmxcsr %0" : "=m"(csr));
    csr = (csr & ~0x3fu & ~unmask);
    asm volatile("ldmxcsr %0" ::"m"(csr));
    if (multiply) asm volatile("mulsd %1, %0" : "+x"(a) : "x"(b));
    else asm volatile("divsd %1, %0" : "+x"(a) : "x"(b));
}
static void op_sse_divide(void) { sse(1 << 9, 1, 0, 0); }
static void op_sse_invalid(void) { sse(1 << 7, 0, 0, 0); }
static void op_sse_overflow(void) { sse(1 << 10, 1e308, 1e308, 1); }
static void op_sse_underflow(void) { sse(1 << 11, 1e-308, 1e-308, 1); }
static void op_sse_inexact(void) { sse(1 << 12, 1, 3, 0); }
static void op_x87_divide(void) {
    unsigned short control = 0x37f & ~4;
    asm volatile("fldcw %0; fld1; fldz; fdivrp; fwait" ::"m"(control));
}
static volatile char sink;
static void *page(int protection) { return mmap(NULL, 4096, protection, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0); }
static void op_execute_nx(void) { char *p = page(PROT_READ | PROT_WRITE); p[0] = 0xc3; expected = (uintptr_t)p; ((void (*)(void))p)(); }
static void op_write_text(void) { expected = (uintptr_t)&say; *(volatile char *)&say = 0; }
static void op_write_read_only(void) { volatile char *p = page(PROT_READ); expected = (uintptr_t)p; p[7] = 1; }
static void op_read_none(void) { volatile char *p = page(PROT_NONE); expected = (uintptr_t)p; sink = p[9]; }
static void op_read_unmapped(void) { volatile char *p = page(PROT_READ); munmap((void *)p, 4096); expected = (uintptr_t)p; sink = p[1]; }
static void op_straddle(void) {
    char *p = mmap(NULL, 8192, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    p[4094] = 0x48, p[4095] = 0xb8;     // the first two bytes of a ten-byte mov
    munmap(p + 4096, 4096);
    expected = (uintptr_t)p + 4096;
    ((void (*)(void))(p + 4094))();
}
static void op_beyond_file(void) {
    int fd = open("/proc/self/exe", O_RDONLY);
    off_t size = lseek(fd, 0, SEEK_END);
    volatile char *p = mmap(NULL, 1 << 24, PROT_READ, MAP_PRIVATE, fd, 0);
    expected = (uintptr_t)p + ((size + 4095) & -4096);
    sink = *(volatile char *)expected;
}
static void op_unterminated_wait(void) {  // the direction flag and high bits of the number survive a system call
    long result, flags;
    asm volatile("std; syscall; pushfq; cld; pop %1" : "=a"(result), "=r"(flags) : "a"(0x100000027L) : "rcx", "r11", "memory");
    say("%ld %ld\n", result == getpid(), (flags >> 10) & 1, 0);
    asm volatile("syscall" : "=a"(result) : "a"(-1L) : "rcx", "r11", "memory");
    say("%ld\n", result, 0, 0);
    asm volatile("syscall" : "=a"(result) : "a"(0x7fffffffL) : "rcx", "r11", "memory");
    say("%ld\n", result, 0, 0);
}
static void op_popf_everything(void) {
    long flags;
    asm volatile("pushfq; orq $0x3ee00, (%%rsp); andq $~0x4000, (%%rsp); popfq; pushfq; pop %0; push $2; popfq" : "=r"(flags)::"cc");
    say("%#lx\n", flags & ~0x8d5, 0, 0);
}
static void op_registers_survive(void) {
    static long out[12];
    asm volatile("mov $1,%%rbx; mov $2,%%rdx; mov $3,%%rsi; mov $4,%%rdi; mov $5,%%r8; mov $6,%%r9; mov $7,%%r10; mov $8,%%r12;"
                 "mov $9,%%r13; mov $10,%%r14; mov $11,%%r15; mov $9999,%%eax; syscall;"
                 "mov %%rbx,%0; mov %%rdx,8+%0; mov %%rsi,16+%0; mov %%rdi,24+%0; mov %%r8,32+%0; mov %%r9,40+%0; mov %%r10,48+%0;"
                 "mov %%r12,56+%0; mov %%r13,64+%0; mov %%r14,72+%0; mov %%r15,80+%0; mov %%rax,88+%0"
                 : "=m"(out)::"rax", "rbx", "rcx", "rdx", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15", "memory");
    for (int i = 0; i < 12; i++) say("%ld ", out[i], 0, 0);
    say("\n", 0, 0, 0);
}
static void op_arch_prctl_bad(void) {
    uintptr_t values[] = {1UL << 47, 1UL << 63, -1UL, 0xffff800000000000};
    for (int i = 0; i < 4; i++) say("%ld %ld\n", syscall(SYS_arch_prctl, 0x1001, values[i]), syscall(SYS_arch_prctl, 0x1002, values[i]), 0);
}
static void op_self_modifying(void) {
    unsigned char *p = mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    long sum = 0;
    for (unsigned i = 0; i < 1000; i++) {
        p[0] = 0xb8, memcpy(p + 1, &i, 4), p[5] = 0xc3;
        sum += ((int (*)(void))p)();
    }
    for (unsigned i = 0; i < 50; i++) {  // and as a careful compiler does it
        mprotect(p, 4096, PROT_READ | PROT_WRITE);
        memcpy(p + 1, &i, 4);
        mprotect(p, 4096, PROT_READ | PROT_EXEC);
        sum += ((int (*)(void))p)();
    }
    say("%ld\n", sum, 0, 0);
}

#define EXACT(n) {#n, op_##n, 1}
#define LOOSE(n) {#n, op_##n, 0}
static const struct { const char *name; void (*run)(void); int exact; } cases[] = {
    EXACT(out), EXACT(out_dx), EXACT(in), EXACT(outs), EXACT(hlt), EXACT(cli), EXACT(sti), EXACT(rdmsr), EXACT(wrmsr), EXACT(lgdt),
    EXACT(lidt), EXACT(ltr), EXACT(lldt), EXACT(clts), EXACT(invd), EXACT(wbinvd), EXACT(invlpg), EXACT(read_cr0), EXACT(write_cr0),
    EXACT(write_cr3), EXACT(write_cr4), EXACT(read_dr7), EXACT(write_dr7), EXACT(swapgs), EXACT(sysretq), EXACT(xsetbv),
    EXACT(xgetbv_bad), EXACT(ud2), EXACT(int3), EXACT(into_like), EXACT(iret_null), EXACT(iret_kernel), EXACT(iret_garbage),
    EXACT(lret_bad), EXACT(lret_null), EXACT(nt_iret), EXACT(load_ds_bad), EXACT(load_fs_bad), EXACT(load_ss_null),
    EXACT(divide_by_zero), EXACT(divide_overflow), EXACT(single_step), EXACT(jump_noncanonical),
    EXACT(jump_null), EXACT(jump_kernel), EXACT(return_noncanonical), EXACT(push_at_zero), EXACT(push_noncanonical), EXACT(lock_bad),
    EXACT(long_instruction), EXACT(wrfsbase_bad), EXACT(wrgsbase_bad), EXACT(movaps_unaligned), EXACT(gs_read), EXACT(cpuid),
    EXACT(sse_divide), EXACT(sse_invalid), EXACT(sse_overflow), EXACT(sse_underflow), EXACT(sse_inexact), EXACT(x87_divide),
    EXACT(execute_nx), EXACT(write_text), EXACT(write_read_only), EXACT(read_none), EXACT(read_unmapped), EXACT(straddle),
    EXACT(beyond_file), EXACT(unterminated_wait), EXACT(popf_everything), EXACT(registers_survive), EXACT(arch_prctl_bad),
    EXACT(self_modifying), EXACT(alignment_check), EXACT(syscall_trap),
    LOOSE(mxcsr_reserved), LOOSE(vmcall), LOOSE(vmmcall), LOOSE(vmlaunch), LOOSE(vmxoff), LOOSE(sysenter), LOOSE(sgdt), LOOSE(sidt), LOOSE(sldt), LOOSE(str),
    LOOSE(smsw), LOOSE(rdpmc), LOOSE(monitor), LOOSE(mwait), LOOSE(rsm), LOOSE(icebp), LOOSE(lar), LOOSE(int80), LOOSE(vsyscall),
    LOOSE(far_jump_32), LOOSE(umwait), LOOSE(load_ds_kernel), LOOSE(tpause), LOOSE(sysexit), LOOSE(segment_limits),
};

static void catch_everything(void) {
    stack_t stack = {.ss_sp = alternate, .ss_size = sizeof alternate};
    sigaltstack(&stack, NULL);
    struct sigaction action = {.sa_sigaction = handler, .sa_flags = SA_SIGINFO | SA_ONSTACK};
    int signals[] = {SIGSEGV, SIGILL, SIGFPE, SIGBUS, SIGTRAP, SIGSYS};
    for (int i = 0; i < 6; i++) sigaction(signals[i], &action, NULL);
}

// `int n` for a number that is known only at run time.
static void interrupt(int n) {
    unsigned char *code = page(PROT_READ | PROT_WRITE | PROT_EXEC);
    code[0] = 0xcd, code[1] = n, code[2] = 0xc3;
    asm volatile("call *%0" ::"r"(code), "a"(20) : "memory", "rcx", "r11", "cc");
}

// A load (r), store (w), or jump (x) at an address.
static void touch(char how, uintptr_t address) {
    if (how == 'r') sink = *(volatile char *)address;
    if (how == 'w') *(volatile char *)address = 1;
    if (how == 'x') ((void (*)(void))address)();
}

int main(int argc, char **argv) {
    const char *name = argc > 1 ? argv[1] : "";
    int listing = strcmp(name, "list") == 0 ? 1 : strcmp(name, "list-loose") == 0 ? 0 : -1;
    if (argc > 2 && strcmp(argv[argc - 1], "caught") == 0) catch_everything();
    if (strcmp(name, "int") == 0) { interrupt(atoi(argv[2])); say("went on\n", 0, 0, 0); return 0; }
    if (strcmp(name, "touch") == 0) { touch(argv[2][0], strtoul(argv[3], NULL, 0)); say("went on\n", 0, 0, 0); return 0; }
    for (unsigned i = 0; i < sizeof cases / sizeof *cases; i++) {
        if (listing == cases[i].exact) puts(cases[i].name);
        if (strcmp(name, cases[i].name)) continue;
        cases[i].run();
        say("went on\n", 0, 0, 0);
        return 0;
    }
    return listing < 0 ? 98 : 0;
}
