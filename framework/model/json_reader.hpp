// Reads typed fields out of a JSON document and, when one does not fit, says where and what was
// wanted. Used by the codecs of this folder and by admission; costs nothing until something is
// wrong (the path is put together only then). Includes all of nlohmann/json: for .cpp files.
#pragma once

#include <cstdint>
#include <limits>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "egw/model/address.hpp"
#include "egw/model/result.hpp"

namespace egw::model {

// The value at one path of a document. A key that is absent and one that is null read the same, as
// in Kubernetes: both leave the target as it was, and so does one that does not fit. Valid as long
// as the document and the cursors that it was made from.
class Cursor {
 public:
  // `faults` receives every problem: object is the field's path, message what was wanted.
  Cursor(const nlohmann::json& root, std::vector<Error>& faults, std::string_view root_path = {});

  // Of an object; something else than an object or null is an error.
  [[nodiscard]] Cursor operator[](std::string_view key) const;
  [[nodiscard]] bool present() const { return value_ != nullptr; }

  void get(std::string& out) const;
  void get(bool& out) const;
  void get(Address& out) const;
  void get_int(std::int64_t& out, std::int64_t min = std::numeric_limits<std::int64_t>::min(),
               std::int64_t max = std::numeric_limits<std::int64_t>::max()) const;
  void get_uint(std::uint64_t& out,
                std::uint64_t max = std::numeric_limits<std::uint64_t>::max()) const;
  void get_uint(std::uint32_t& out, std::uint32_t max) const;
  // RFC 3339 text to Unix ms.
  void get_time(std::int64_t& out_ms) const;
  // An element that does not fit is an empty string.
  void get(std::vector<std::string>& out) const;

  // f(Cursor) for every element of a list; nulls in it are errors.
  template <class F>
  void each(F&& f) const {
    const nlohmann::json* list = typed(nlohmann::json::value_t::array, "a list");
    if (list == nullptr) return;
    for (std::size_t i = 0; i < list->size(); ++i) {
      const Cursor element(*this, &(*list)[i], {}, i);
      if ((*list)[i].is_null()) {
        element.mismatch("a value, not null");
      } else {
        f(element);
      }
    }
  }
  // f(key, Cursor) for every member of an object, in the order of keys.
  template <class F>
  void members(F&& f) const {
    const nlohmann::json* object = typed(nlohmann::json::value_t::object, "an object");
    if (object == nullptr) return;
    for (auto it = object->begin(); it != object->end(); ++it) {
      f(it.key(), Cursor(*this, &it.value(), it.key(), kNoIndex));
    }
  }

  // Notes "<path>: <value>: want <wanted>".
  void mismatch(std::string_view wanted) const;
  void note(Error error) const;
  // How many problems the document has so far: whether a step has found one.
  [[nodiscard]] std::size_t faults() const { return faults_->size(); }
  [[nodiscard]] std::string path() const;
  [[nodiscard]] const nlohmann::json* value() const { return value_; }

 private:
  static constexpr std::size_t kNoIndex = std::numeric_limits<std::size_t>::max();
  Cursor(const Cursor& up, const nlohmann::json* value, std::string_view key, std::size_t index)
      : up_(&up), value_(value), key_(key), index_(index), faults_(up.faults_) {}
  // The value if it has the type; else nullptr, with an error unless it is absent.
  [[nodiscard]] const nlohmann::json* typed(nlohmann::json::value_t type,
                                            std::string_view wanted) const;

  const Cursor* up_ = nullptr;
  const nlohmann::json* value_ = nullptr;
  std::string_view key_;
  std::size_t index_ = kNoIndex;
  std::vector<Error>* faults_;
};

// A value as a person would quote it in a message, on one line and not too long.
[[nodiscard]] std::string describe(const nlohmann::json& value);

}  // namespace egw::model
