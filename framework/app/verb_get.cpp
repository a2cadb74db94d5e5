// `egw get`: prints stored objects, and follows them.
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <map>
#include <utility>

#include "egw/app/console.hpp"
#include "egw/app/manifest.hpp"
#include "egw/app/table.hpp"
#include "egw/app/verbs.hpp"
#include "egw/app/yaml.hpp"
#include "egw/model/selector.hpp"

namespace egw::app {
namespace {

using model::Kind;
using nlohmann::json;

enum class Format { kTable, kWide, kJson, kYaml, kName };

struct Request {
  std::vector<Kind> kinds;
  std::vector<std::string> names;
  std::string ns;  // for the namespaced kinds; empty: all
  std::string selector;
  Format format = Format::kTable;
  bool watch = false, watch_only = false;
};

std::int64_t now_ms() {
  using namespace std::chrono;
  return duration_cast<milliseconds>(system_clock::now().time_since_epoch()).count();
}

Result<Request> request_of(const Args& args) {
  Request r;
  std::string kinds = args.positional[0];
  r.names.assign(args.positional.begin() + 1, args.positional.end());
  if (const std::size_t slash = kinds.find('/'); slash != std::string::npos) {
    if (!r.names.empty()) return fail(Errc::kInvalid, "", "expected KIND/NAME or KIND NAME...");
    r.names.push_back(kinds.substr(slash + 1));
    kinds.resize(slash);
  }
  auto parsed = parse_kinds(kinds);
  if (!parsed) return tl::unexpected(std::move(parsed.error()));
  r.kinds = *std::move(parsed);
  if (!r.names.empty() && r.kinds.size() > 1) {
    return fail(Errc::kInvalid, "", "names go with one kind only");
  }
  if (args.has("all-namespaces")) {
    if (args.has("namespace")) return fail(Errc::kInvalid, "", "-n and -A exclude each other");
    if (!r.names.empty() && model::info(r.kinds[0]).namespaced) {
      return fail(Errc::kInvalid, "", "a name needs one namespace (-n); -A lists all");
    }
  } else {
    r.ns = args.get("namespace", "default");
  }
  r.selector = args.get("selector");
  if (!r.selector.empty()) {
    if (!r.names.empty()) return fail(Errc::kInvalid, "", "a name and -l exclude each other");
    auto checked = model::LabelSelector::parse_text(r.selector);
    if (!checked) return fail(Errc::kInvalid, "-l " + r.selector, checked.error().message);
  }
  r.watch_only = args.has("watch-only");
  r.watch = args.has("watch") || r.watch_only;
  if (r.watch && r.names.size() > 1) return fail(Errc::kInvalid, "", "-w follows one name or all");
  static const std::map<std::string, Format> kFormats{{"table", Format::kTable},
                                                      {"wide", Format::kWide},
                                                      {"json", Format::kJson},
                                                      {"yaml", Format::kYaml},
                                                      {"name", Format::kName}};
  const std::string format = args.get("output", "table");
  const auto found = kFormats.find(format);
  if (found == kFormats.end()) {
    return fail(Errc::kInvalid, "-o " + format, "expected table, wide, json, yaml or name");
  }
  r.format = found->second;
  return r;
}

host::Query query_of(const Request& r, Kind kind, const std::string& name) {
  host::Query q{kind, model::info(kind).namespaced ? r.ns : "", name, "", r.selector};
  return q;
}

// Prints objects one after another, as a table or as documents.
class Printer {
 public:
  Printer(const Request& r, Console& console) : r_(r), console_(console) {
    for (const Kind kind : r.kinds)
      style_.with_namespace |= model::info(kind).namespaced && r.ns.empty();
    style_.wide = r.format == Format::kWide;
    style_.with_kind = r.kinds.size() > 1;
  }

  void add(Kind kind, const json& document) {
    switch (r_.format) {
      case Format::kTable:
      case Format::kWide:
        if (table_ == nullptr || table_kind_ != kind) {
          flush();
          if (table_ != nullptr) console_.out("\n");
          table_ = std::make_unique<Table>(header_of(kind, style(kind)));
          table_kind_ = kind;
        }
        table_->add(row_of(kind, document, style(kind), now_ms()));
        return;
      case Format::kJson:
        console_.out(write_json(document));
        return;
      case Format::kYaml:
        console_.out((yaml_documents_++ > 0 ? "---\n" : "") + write_yaml(document));
        return;
      case Format::kName: {
        const json metadata = document.value("metadata", json::object());
        console_.out(fmt::format("{}/{}\n", resource_name(kind), metadata.value("name", "")));
        return;
      }
    }
  }

  // The whole answer: an object, or a List of them.
  void add_all(const std::vector<std::pair<Kind, json>>& objects, bool single) {
    if (r_.format != Format::kJson && r_.format != Format::kYaml) {
      for (const auto& [kind, document] : objects) add(kind, document);
      return flush();
    }
    if (single && objects.size() == 1) return add(objects[0].first, objects[0].second);
    json list{{"apiVersion", "v1"},
              {"kind", "List"},
              {"metadata", {{"resourceVersion", ""}}},
              {"items", json::array()}};
    for (const auto& [kind, document] : objects) list["items"].push_back(document);
    console_.out(r_.format == Format::kJson ? write_json(list) : write_yaml(list));
  }

  void flush() {
    if (table_ != nullptr) console_.out(table_->format());
  }

 private:
  [[nodiscard]] RowStyle style(Kind kind) const {
    RowStyle s = style_;
    s.with_namespace = s.with_namespace && model::info(kind).namespaced;
    return s;
  }

  const Request& r_;
  Console& console_;
  RowStyle style_;
  std::unique_ptr<Table> table_;
  Kind table_kind_{};
  int yaml_documents_ = 0;
};

int say(Context& context, const Error& error) {
  context.console.error(error.to_string());
  return kRefused;
}

int not_found(Context& context, Kind kind, const std::string& name) {
  context.console.error(fmt::format("{} \"{}\" not found", model::info(kind).plural, name));
  return kRefused;
}

// As they happened, the newest last.
void sort_events(std::vector<host::StoredObject>& events) {
  std::stable_sort(events.begin(), events.end(), [](const auto& a, const auto& b) {
    return event_ms(a.document) < event_ms(b.document);
  });
}

int print_once(Context& context, Session& session, const Request& r) {
  std::vector<std::pair<Kind, json>> objects;
  int code = kDone;
  for (const auto& name : r.names) {
    const Kind kind = r.kinds[0];
    auto object = session.get(kind, {model::info(kind).namespaced ? r.ns : "", name});
    if (object) {
      objects.emplace_back(kind, std::move(object->document));
    } else {
      code = object.error().code == Errc::kNotFound ? not_found(context, kind, name)
                                                    : say(context, object.error());
    }
  }
  if (r.names.empty()) {
    for (const Kind kind : r.kinds) {
      auto listed = session.list(query_of(r, kind, ""));
      if (!listed) return say(context, listed.error());
      if (kind == Kind::kEvent) sort_events(*listed);
      for (auto& object : *listed) objects.emplace_back(kind, std::move(object.document));
    }
  }
  const bool document = r.format == Format::kJson || r.format == Format::kYaml;
  if (objects.empty() && r.names.empty() && !document) {
    const bool in_one = model::info(r.kinds[0]).namespaced && !r.ns.empty();
    context.console.err(in_one ? fmt::format("No resources found in {} namespace.", r.ns)
                               : "No resources found");
  }
  if (!objects.empty() || (document && r.names.empty())) {
    Printer(r, context.console).add_all(objects, r.names.size() == 1);
  }
  return finish(context, code);
}

// What a watch has shown already: after an interruption the store sends everything again.
class Printed {
 public:
  bool is_news(std::size_t query, const host::StoreEvent& event) {
    const auto key = std::make_pair(query, event.key);
    if (event.type == host::StoreEvent::Type::kDelete) return versions_.erase(key), true;
    const json metadata = event.document.value("metadata", json::object());
    const json version = metadata.value("resourceVersion", json());
    auto& shown = versions_[key];
    return std::exchange(shown, version) != version || version.is_null();
  }

 private:
  std::map<std::pair<std::size_t, model::Key>, json> versions_;
};

int follow(Context& context, Session& session, const Request& r) {
  const std::string name = r.names.empty() ? "" : r.names[0];
  Printer printer(r, context.console);
  std::vector<host::Query> queries;
  for (const Kind kind : r.kinds) queries.push_back(query_of(r, kind, name));
  std::vector<bool> synced(queries.size(), false);
  Printed printed;
  std::size_t seen = 0;
  int code = kDone;
  const auto on_event = [&](std::size_t i, const host::StoreEvent& event) {
    using Type = host::StoreEvent::Type;
    switch (event.type) {
      case Type::kUpsert:
      case Type::kDelete:
        ++seen;
        if (event.document.is_object() && printed.is_news(i, event) &&
            (synced[i] || !r.watch_only)) {
          printer.add(r.kinds[i], event.document);
        }
        break;
      case Type::kSynced:
        if (!synced[i] && seen == 0 && !name.empty()) {
          code = not_found(context, r.kinds[i], name);
          return false;
        }
        synced[i] = true;
        break;
      case Type::kDisconnected:
        context.console.err("the store cannot be reached: " + event.message);
        break;
      case Type::kSnapshot:
      case Type::kRevision:
        break;
    }
    // A snapshot's rows go out together, so that their columns fit.
    if (synced[i]) printer.flush();
    return !synced[i] || context.console.flush();
  };
  if (auto ok = session.watch(std::move(queries), on_event); !ok) return say(context, ok.error());
  // A reader that went away, or ctrl-C, is how a watch ends.
  return context.console.failed() ? kRefused : code;
}

int run_get(Context& context) {
  auto request = request_of(context.args);
  if (!request) return usage_error(context, "get", request.error().to_string());
  int code = kDone;
  const auto session = open_store(context, code);
  if (session == nullptr) return code;
  return request->watch ? follow(context, *session, *request)
                        : print_once(context, *session, *request);
}

}  // namespace

Verb get_verb() {
  Verb v;
  v.name = "get";
  v.usage = "KIND[,KIND]... [NAME]... | KIND/NAME";
  v.summary = "Print stored objects";
  v.details =
      "Kinds by plural, singular or short name: egw, egp, egcp, egt, egci, egep, egcep, no, po, "
      "ns, ev.\n\n"
      "examples:\n"
      "  egw get egw\n"
      "  egw get egp -A -o wide\n"
      "  egw get egt -w\n"
      "  egw get events -A\n"
      "  egw get egw egw -o yaml\n"
      "  egw get pods -l app=shop -o name";
  v.options = {
      {"namespace", 'n', "NAMESPACE", "of namespaced kinds (default: default)"},
      {"all-namespaces", 'A', "", "all namespaces"},
      {"selector", 'l', "SELECTOR", "labels, e.g. app=shop,tier!=test"},
      {"output", 'o', "FORMAT", "table, wide, json, yaml or name"},
      {"watch", 'w', "", "then print every change, until ctrl-C"},
      {"watch-only", 0, "", "print the changes only"},
  };
  v.min_args = 1;
  v.max_args = 1000;
  v.run = run_get;
  return v;
}

}  // namespace egw::app
