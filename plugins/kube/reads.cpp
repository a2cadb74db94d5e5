// See reads.hpp.
#include "reads.hpp"

#include <algorithm>

namespace egw::kube {

using nlohmann::json;
using sdk::Code;
using std::chrono::milliseconds;
using std::chrono::steady_clock;

std::string text_of(const sdk::ObjectKind& kind, std::string_view ns, std::string_view name) {
  std::string out(kind.kind);
  out += ' ';
  if (!ns.empty()) out.append(ns).append("/");
  return out.append(name.substr(0, 260));
}

std::uint64_t deliver(const Resource& resource, json object, const sdk::ObjectSink& out) {
  const std::uint64_t revision = revision_of(object);
  // Items of a list do not say what they are.
  object["apiVersion"] = resource.api_version();
  object["kind"] = resource.kind;
  if (object.contains("metadata") && object["metadata"].is_object()) {
    object["metadata"].erase("managedFields");
  }
  out.object(revision, object.dump(-1, ' ', false, json::error_handler_t::replace));
  return revision;
}

sdk::Status get_into(Api& api, const sdk::ObjectKind& kind, std::string_view ns,
                     std::string_view name, milliseconds deadline, const sdk::ObjectSink& out,
                     Stop* stop) {
  const Resource resource(kind);
  HttpRequest request;
  request.path = resource.object(ns, name);
  request.deadline = deadline;
  const auto object = api.object(request, {"get", resource.text(), text_of(kind, ns, name)}, stop);
  if (object.ok()) deliver(resource, object.value(), out);
  return object.status();
}

sdk::Status list_into(Api& api, const sdk::Query& query, milliseconds deadline,
                      const sdk::ObjectSink& out, Stop* stop) {
  const Resource resource(query.kind);
  const auto until = steady_clock::now() + deadline;
  std::string fields(query.fields), more;
  if (!query.name.empty()) {
    fields.append(fields.empty() ? "" : ",").append("metadata.name=").append(query.name);
  }
  do {
    HttpRequest request;
    request.path = resource.collection(query.ns) + Parameters()
                                                       .add("limit", kPageSize)
                                                       .add("continue", more)
                                                       .add("fieldSelector", fields)
                                                       .add("labelSelector", query.labels)
                                                       .text();
    request.deadline = left_until(until);
    auto page = api.object(request, {"list", resource.text(), ""}, stop);
    if (!page.ok()) return page.status();
    const auto items = page->find("items");
    if (items == page->end() || !(items->is_array() || items->is_null())) {
      return sdk::fail(Code::kInternal, "the list has no items", resource.text());
    }
    for (json& item : *items) {
      if (item.is_object()) deliver(resource, std::move(item), out);
    }
    more = text_of(member_of(*page, "metadata"), "continue");
  } while (!more.empty());
  return sdk::ok();
}

sdk::Status ApiReader::get(const sdk::ObjectKind& kind, std::string_view ns, std::string_view name,
                           const sdk::ObjectSink& out) {
  return note(get_into(api_, kind, ns, name, left_until(until_), out, stop_));
}

sdk::Status ApiReader::list(const sdk::ObjectKind& kind, const sdk::ObjectSink& out) {
  sdk::Query query;
  query.kind = kind;
  return note(list_into(api_, query, left_until(until_), out, stop_));
}

sdk::Status ApiReader::note(sdk::Status status) {
  if (!status.ok() && status.code != Code::kNotFound) trouble_ = status;
  return status;
}

std::string cannot_judge(const sdk::Status& trouble) {
  return "egw cannot judge it now, try again: " + trouble.text();
}

}  // namespace egw::kube
