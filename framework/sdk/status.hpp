// What an operation of a plugin answers: Status, Outcome<T>, and Failure for code that prefers to
// throw. Used by every other header of the SDK; depends on nothing but the ABI's numbers.
#pragma once

#include <cstdint>
#include <cstring>
#include <exception>
#include <string>
#include <string_view>
#include <utility>
#include <variant>

#include "egw/abi/types.h"

namespace egw::sdk {

// egw_status with a type of its own; the meaning of each value stands in abi/types.h.
enum class Code : std::int32_t {
  kOk = EGW_OK,
  kInvalid = EGW_INVALID,
  kNotFound = EGW_NOT_FOUND,
  kExists = EGW_EXISTS,
  kConflict = EGW_CONFLICT,
  kDenied = EGW_DENIED,
  kStaleTerm = EGW_STALE_TERM,
  kUnavailable = EGW_UNAVAILABLE,
  kNeedFull = EGW_NEED_FULL,
  kPartial = EGW_PARTIAL,
  kUnsupported = EGW_UNSUPPORTED,
  kInternal = EGW_INTERNAL,
};

// message: a full sentence for the operator. what: the object or key concerned, may be empty.
// sys_errno: 0 or an errno value.
struct [[nodiscard]] Status {
  Code code = Code::kOk;
  int sys_errno = 0;
  std::string what;
  std::string message;

  [[nodiscard]] bool ok() const { return code == Code::kOk; }
  // "what: message (strerror)"; the parts that are empty are left out.
  [[nodiscard]] std::string text() const {
    std::string out = what.empty() || message.empty() ? what + message : what + ": " + message;
    if (sys_errno != 0) out += std::string(" (") + std::strerror(sys_errno) + ")";
    return out;
  }
};

[[nodiscard]] inline Status ok() { return {}; }

[[nodiscard]] inline Status fail(Code code, std::string message, std::string what = {},
                                 int sys_errno = 0) {
  return Status{code, sys_errno, std::move(what), std::move(message)};
}

// Carries a Status out of any depth, also out of a constructor; the thunks turn it back.
class Failure : public std::exception {
 public:
  explicit Failure(Status status) : status_(std::move(status)), text_(status_.text()) {}
  Failure(Code code, std::string message, std::string what = {}, int sys_errno = 0)
      : Failure(fail(code, std::move(message), std::move(what), sys_errno)) {}

  [[nodiscard]] const char* what() const noexcept override { return text_.c_str(); }
  [[nodiscard]] const Status& status() const noexcept { return status_; }

 private:
  Status status_;
  std::string text_;
};

// A value or the Status that says why there is none.
template <class T>
class [[nodiscard]] Outcome {
 public:
  Outcome(T value) : content_(std::in_place_index<0>, std::move(value)) {}  // NOLINT: implicit
  Outcome(Status status)
      : content_(std::in_place_index<1>, std::move(status)) {  // NOLINT: implicit
    if (std::get<1>(content_).ok()) {
      std::get<1>(content_) = fail(Code::kInternal, "success was answered without a value");
    }
  }

  [[nodiscard]] bool ok() const { return content_.index() == 0; }
  explicit operator bool() const { return ok(); }
  // Precondition of both: ok(). A value that is not there throws its Status as a Failure.
  [[nodiscard]] T& value() {
    if (!ok()) throw Failure(std::get<1>(content_));
    return std::get<0>(content_);
  }
  [[nodiscard]] const T& value() const { return const_cast<Outcome*>(this)->value(); }
  T& operator*() { return value(); }
  const T& operator*() const { return value(); }
  T* operator->() { return &value(); }
  const T* operator->() const { return &value(); }
  [[nodiscard]] Status status() const { return ok() ? Status{} : std::get<1>(content_); }

 private:
  std::variant<T, Status> content_;
};

}  // namespace egw::sdk
