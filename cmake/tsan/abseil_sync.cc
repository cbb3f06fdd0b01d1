// What an uninstrumented Abseil does not tell ThreadSanitizer: which calls order memory between
// threads. See cmake/TsanAbseil.cmake. Only the tsan preset builds and links this.
//
// Waiting for a condition is done by looking again and again: inside Abseil a condition is
// evaluated where ThreadSanitizer cannot see that the lock is held.
#include <sanitizer/tsan_interface.h>

#include "absl/synchronization/blocking_counter.h"
#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"

using absl::BlockingCounter;
using absl::Condition;
using absl::CondVar;
using absl::Duration;
using absl::Mutex;
using absl::Notification;
using absl::Time;

// Declares the original function and the one that the linker puts in its place.
#define ROUTE(result, name, ...)                       \
  result Real##name(__VA_ARGS__) __asm__(REAL_##name); \
  result Wrap##name(__VA_ARGS__) __asm__(WRAP_##name); \
  result Wrap##name(__VA_ARGS__)

namespace {

constexpr Duration kPoll = absl::Microseconds(50);

void Acquire(const void* object) { __tsan_acquire(const_cast<void*>(object)); }
void Release(const void* object) { __tsan_release(const_cast<void*>(object)); }

// The atomic inside, whichever member it is, is read by inline code of the header.
void ReleaseAllBytes(const Notification* n) {
  const char* bytes = reinterpret_cast<const char*>(n);
  for (size_t i = 0; i < sizeof(*n); ++i) Release(bytes + i);
}

bool AwaitUntil(Mutex* mutex, const Condition& condition, Time deadline) {
  while (!condition.Eval()) {
    if (absl::Now() >= deadline) return false;
    mutex->Unlock();
    absl::SleepFor(kPoll);
    mutex->Lock();
  }
  return true;
}

}  // namespace

ROUTE(void, MutexLock, Mutex* mutex) {
  RealMutexLock(mutex);
  Acquire(mutex);
}
ROUTE(void, MutexUnlock, Mutex* mutex) {
  Release(mutex);
  RealMutexUnlock(mutex);
}
ROUTE(bool, MutexTryLock, Mutex* mutex) {
  const bool locked = RealMutexTryLock(mutex);
  if (locked) Acquire(mutex);
  return locked;
}
ROUTE(void, MutexReaderLock, Mutex* mutex) {
  RealMutexReaderLock(mutex);
  Acquire(mutex);
}
ROUTE(void, MutexReaderUnlock, Mutex* mutex) {
  Release(mutex);
  RealMutexReaderUnlock(mutex);
}
ROUTE(void, MutexAwait, Mutex* mutex, const Condition& condition) {
  AwaitUntil(mutex, condition, absl::InfiniteFuture());
}
ROUTE(bool, MutexAwaitWithTimeout, Mutex* mutex, const Condition& condition, Duration timeout) {
  return AwaitUntil(mutex, condition, absl::Now() + timeout);
}
ROUTE(bool, MutexAwaitWithDeadline, Mutex* mutex, const Condition& condition, Time deadline) {
  return AwaitUntil(mutex, condition, deadline);
}
ROUTE(void, MutexLockWhen, Mutex* mutex, const Condition& condition) {
  mutex->Lock();
  AwaitUntil(mutex, condition, absl::InfiniteFuture());
}

ROUTE(void, CondVarWait, CondVar* cv, Mutex* mutex) {
  Release(mutex);
  RealCondVarWait(cv, mutex);
  Acquire(mutex);
}
ROUTE(bool, CondVarWaitWithTimeout, CondVar* cv, Mutex* mutex, Duration timeout) {
  Release(mutex);
  const bool timed_out = RealCondVarWaitWithTimeout(cv, mutex, timeout);
  Acquire(mutex);
  return timed_out;
}
ROUTE(bool, CondVarWaitWithDeadline, CondVar* cv, Mutex* mutex, Time deadline) {
  Release(mutex);
  const bool timed_out = RealCondVarWaitWithDeadline(cv, mutex, deadline);
  Acquire(mutex);
  return timed_out;
}

ROUTE(void, NotificationNotify, Notification* n) {
  ReleaseAllBytes(n);
  RealNotificationNotify(n);
}
ROUTE(void, NotificationWait, const Notification* n) {
  RealNotificationWait(n);
  Acquire(n);
}
ROUTE(bool, NotificationWaitWithTimeout, const Notification* n, Duration timeout) {
  const bool notified = RealNotificationWaitWithTimeout(n, timeout);
  if (notified) Acquire(n);
  return notified;
}
ROUTE(bool, NotificationWaitWithDeadline, const Notification* n, Time deadline) {
  const bool notified = RealNotificationWaitWithDeadline(n, deadline);
  if (notified) Acquire(n);
  return notified;
}

ROUTE(bool, CounterDecrement, BlockingCounter* counter) {
  Release(counter);
  return RealCounterDecrement(counter);
}
ROUTE(void, CounterWait, BlockingCounter* counter) {
  RealCounterWait(counter);
  Acquire(counter);
}
