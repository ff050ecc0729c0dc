#include "fiber.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <new>

#if defined(LFK_ADDRESS_SANITIZER)
#include <sanitizer/common_interface_defs.h>
#endif

#if defined(__x86_64__)
// Pushes what a function must preserve, leaves the stack pointer in *from and goes on at `to`. By a
// jump: no return address that the processor predicts is the right one.
extern "C" void lfk_switch_stack(void **from, void *to);
asm(R"(
.text
.globl lfk_switch_stack
.type lfk_switch_stack, @function
lfk_switch_stack:
  push %rbp
  push %rbx
  push %r12
  push %r13
  push %r14
  push %r15
  mov %rsp, (%rdi)
  mov %rsi, %rsp
  pop %r15
  pop %r14
  pop %r13
  pop %r12
  pop %rbx
  pop %rbp
  pop %rcx
  jmp *%rcx
.size lfk_switch_stack, . - lfk_switch_stack
)");
#else
#include <ucontext.h>
#endif

namespace lstm_fastkernels {
namespace device {
namespace emulator {
namespace {

constexpr size_t kStackBytes = 128 * 1024;

size_t page_bytes() { return static_cast<size_t>(sysconf(_SC_PAGESIZE)); }

} // namespace

struct Fiber::State {
  void *mapping = nullptr; // a page that cannot be touched, then the stack
  void (*entry)() = nullptr;
#if defined(__x86_64__)
  void *stack_pointer = nullptr;
#else
  ucontext_t context = {};
#endif
  // For AddressSanitizer:
  const void *bottom = nullptr;
  size_t bytes = 0;
  void *fake_stack = nullptr;
};

namespace {

Fiber::State *left = nullptr, *entered = nullptr; // of the switch under way

void begin_switch(Fiber::State &from, Fiber::State &to) {
  left = &from;
  entered = &to;
#if defined(LFK_ADDRESS_SANITIZER)
  __sanitizer_start_switch_fiber(&from.fake_stack, to.bottom, to.bytes);
#endif
}

void end_switch() {
#if defined(LFK_ADDRESS_SANITIZER)
  __sanitizer_finish_switch_fiber(entered->fake_stack, &left->bottom, &left->bytes);
#endif
}

void start() {
  end_switch();
  entered->entry();
}

} // namespace

Fiber::Fiber() : state_(new State) {}

Fiber::Fiber(void (*entry)()) : state_(new State) {
  State &s = *state_;
  s.entry = entry;
  s.bytes = kStackBytes;
  s.mapping = mmap(nullptr, page_bytes() + kStackBytes, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (s.mapping == MAP_FAILED)
    throw std::bad_alloc();
  mprotect(s.mapping, page_bytes(), PROT_NONE);
  s.bottom = static_cast<char *>(s.mapping) + page_bytes();
#if defined(__x86_64__)
  // As lfk_switch_stack leaves a stack: six registers, then where it returns to; and above them
  // what is at a function's entry a return address, here null, 8 bytes off a multiple of 16.
  const size_t height = page_bytes() + kStackBytes;
  const auto top = reinterpret_cast<uintptr_t *>(static_cast<char *>(s.mapping) + height);
  top[-2] = reinterpret_cast<uintptr_t>(&start);
  s.stack_pointer = top - 8;
#else
  getcontext(&s.context);
  s.context.uc_stack.ss_sp = const_cast<void *>(s.bottom);
  s.context.uc_stack.ss_size = kStackBytes;
  makecontext(&s.context, start, 0);
#endif
}

Fiber::~Fiber() {
  if (state_->mapping)
    munmap(state_->mapping, page_bytes() + kStackBytes);
}

void Fiber::switch_to(Fiber &to) {
  State &from = *state_;
  begin_switch(from, *to.state_);
#if defined(__x86_64__)
  lfk_switch_stack(&from.stack_pointer, to.state_->stack_pointer);
#else
  swapcontext(&from.context, &to.state_->context);
#endif
  end_switch();
}

} // namespace emulator
} // namespace device
} // namespace lstm_fastkernels
