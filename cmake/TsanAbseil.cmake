# Distributions ship Abseil without ThreadSanitizer, which then cannot see that absl::Mutex orders
# anything and reports races that are none. In that preset the linker routes our calls through
# cmake/tsan/abseil_sync.cc, which tells it. Calls inside Abseil itself are not routed.
find_path(_absl_include absl/base/options.h REQUIRED)
file(STRINGS ${_absl_include}/absl/base/options.h _absl_namespace
     REGEX "^#define ABSL_OPTION_INLINE_NAMESPACE_NAME ")
string(REGEX REPLACE ".* " "" _absl_namespace "${_absl_namespace}")
string(LENGTH "${_absl_namespace}" _length)
set(_absl "N4absl${_length}${_absl_namespace}")
set(_const_absl "NK4absl${_length}${_absl_namespace}")

# Name in abseil_sync.cc and mangled name.
set(_wrapped
  MutexLock=_Z${_absl}5Mutex4LockEv
  MutexUnlock=_Z${_absl}5Mutex6UnlockEv
  MutexTryLock=_Z${_absl}5Mutex7TryLockEv
  MutexReaderLock=_Z${_absl}5Mutex10ReaderLockEv
  MutexReaderUnlock=_Z${_absl}5Mutex12ReaderUnlockEv
  MutexAwait=_Z${_absl}5Mutex5AwaitERKNS0_9ConditionE
  MutexAwaitWithTimeout=_Z${_absl}5Mutex16AwaitWithTimeoutERKNS0_9ConditionENS0_8DurationE
  MutexAwaitWithDeadline=_Z${_absl}5Mutex17AwaitWithDeadlineERKNS0_9ConditionENS0_4TimeE
  MutexLockWhen=_Z${_absl}5Mutex8LockWhenERKNS0_9ConditionE
  CondVarWait=_Z${_absl}7CondVar4WaitEPNS0_5MutexE
  CondVarWaitWithTimeout=_Z${_absl}7CondVar15WaitWithTimeoutEPNS0_5MutexENS0_8DurationE
  CondVarWaitWithDeadline=_Z${_absl}7CondVar16WaitWithDeadlineEPNS0_5MutexENS0_4TimeE
  NotificationNotify=_Z${_absl}12Notification6NotifyEv
  NotificationWait=_Z${_const_absl}12Notification19WaitForNotificationEv
  NotificationWaitWithTimeout=_Z${_const_absl}12Notification30WaitForNotificationWithTimeoutENS0_8DurationE
  NotificationWaitWithDeadline=_Z${_const_absl}12Notification31WaitForNotificationWithDeadlineENS0_4TimeE
  CounterDecrement=_Z${_absl}15BlockingCounter14DecrementCountEv
  CounterWait=_Z${_absl}15BlockingCounter4WaitEv)

add_library(anabranch_tsan_abseil SHARED ${CMAKE_CURRENT_LIST_DIR}/tsan/abseil_sync.cc)
foreach(_pair IN LISTS _wrapped)
  string(REPLACE "=" ";" _pair ${_pair})
  list(GET _pair 0 _name)
  list(GET _pair 1 _symbol)
  target_compile_definitions(anabranch_tsan_abseil PRIVATE
    WRAP_${_name}="__wrap_${_symbol}" REAL_${_name}="__real_${_symbol}")
  add_link_options(-Wl,--wrap=${_symbol})
  target_link_options(anabranch_tsan_abseil PRIVATE -Wl,--wrap=${_symbol})
endforeach()
target_link_libraries(anabranch_tsan_abseil PRIVATE absl::synchronization absl::time)
link_libraries(anabranch_tsan_abseil)
