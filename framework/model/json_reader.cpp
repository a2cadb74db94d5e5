// See json_reader.hpp.
#include "egw/model/json_reader.hpp"

#include <fmt/format.h>

#include "egw/model/meta.hpp"
#include "egw/model/text.hpp"

namespace egw::model {

using nlohmann::json;

Cursor::Cursor(const json& root, std::vector<Error>& faults, std::string_view root_path)
    : value_(root.is_null() ? nullptr : &root), key_(root_path), faults_(&faults) {}

std::string Cursor::path() const {
  std::string out = up_ != nullptr ? up_->path() : std::string();
  if (index_ != kNoIndex) return out + fmt::format("[{}]", index_);
  if (!out.empty() && !key_.empty()) out += '.';
  return out.append(key_);
}

void Cursor::note(Error error) const {
  // Each member that is looked for in what is no object finds the same.
  const bool known = !faults_->empty() && faults_->back().object == error.object &&
                     faults_->back().message == error.message;
  if (!known) faults_->push_back(std::move(error));
}

void Cursor::mismatch(std::string_view wanted) const {
  const std::string where = path();
  note({Errc::kInvalid, where.empty() ? "the document" : where,
        fmt::format("{}: want {}", value_ != nullptr ? describe(*value_) : "null", wanted)});
}

const json* Cursor::typed(json::value_t type, std::string_view wanted) const {
  if (value_ == nullptr) return nullptr;
  if (value_->type() == type) return value_;
  mismatch(wanted);
  return nullptr;
}

Cursor Cursor::operator[](std::string_view key) const {
  const json* object = typed(json::value_t::object, "an object");
  const json* found = nullptr;
  if (object != nullptr) {
    const auto it = object->find(key);
    if (it != object->end() && !it->is_null()) found = &*it;
  }
  return {*this, found, key, kNoIndex};
}

void Cursor::get(std::string& out) const {
  if (const json* v = typed(json::value_t::string, "a string")) {
    out = v->get_ref<const std::string&>();
  }
}

void Cursor::get(bool& out) const {
  if (const json* v = typed(json::value_t::boolean, "true or false")) out = v->get<bool>();
}

void Cursor::get(Address& out) const {
  const json* v = typed(json::value_t::string, "an IP address as a string");
  if (v == nullptr) return;
  auto parsed = Address::parse(v->get_ref<const std::string&>());
  if (parsed) {
    out = *parsed;
  } else {
    note({Errc::kInvalid, path(), parsed.error().message});
  }
}

void Cursor::get_int(std::int64_t& out, std::int64_t min, std::int64_t max) const {
  if (value_ == nullptr) return;
  if (value_->is_number_integer()) {
    const bool too_large = value_->is_number_unsigned() &&
                           value_->get<std::uint64_t>() >
                               static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max());
    const std::int64_t v = too_large ? 0 : value_->get<std::int64_t>();
    if (!too_large && v >= min && v <= max) {
      out = v;
      return;
    }
  }
  mismatch(fmt::format("a whole number from {} to {}", min, max));
}

void Cursor::get_uint(std::uint64_t& out, std::uint64_t max) const {
  if (value_ == nullptr) return;
  if (value_->is_number_integer() &&
      (value_->is_number_unsigned() || value_->get<std::int64_t>() >= 0)) {
    const auto v = value_->get<std::uint64_t>();
    if (v <= max) {
      out = v;
      return;
    }
  }
  mismatch(fmt::format("a whole number from 0 to {}", max));
}

void Cursor::get_uint(std::uint32_t& out, std::uint32_t max) const {
  std::uint64_t wide = out;
  get_uint(wide, std::uint64_t{max});
  out = static_cast<std::uint32_t>(wide);
}

void Cursor::get_time(std::int64_t& out_ms) const {
  const json* v = typed(json::value_t::string, "a time as a string");
  if (v == nullptr) return;
  auto parsed = parse_time(v->get_ref<const std::string&>());
  if (parsed) {
    out_ms = *parsed;
  } else {
    note({Errc::kInvalid, path(), parsed.error().message});
  }
}

void Cursor::get(std::vector<std::string>& out) const {
  const json* list = typed(json::value_t::array, "a list");
  if (list == nullptr) return;
  out.assign(list->size(), {});
  for (std::size_t i = 0; i < list->size(); ++i) {
    const Cursor element(*this, &(*list)[i], {}, i);
    if ((*list)[i].is_null()) {
      element.mismatch("a value, not null");
    } else {
      element.get(out[i]);
    }
  }
}

std::string describe(const json& value) {
  if (value.is_object()) return "an object";
  if (value.is_array()) return "a list";
  std::string text = value.dump(-1, ' ', true, json::error_handler_t::replace);
  if (text.size() > 100) text = shortened(text, 97) + "...";
  return value.is_number() ? "number " + text : text;
}

}  // namespace egw::model
