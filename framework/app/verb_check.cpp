// `egw check`: what admission says of manifests, without storing anything; alone, or together with
// what is stored. Every fault of every manifest is told.
#include <fmt/format.h>

#include <map>

#include "egw/app/console.hpp"
#include "egw/app/manifest.hpp"
#include "egw/app/verbs.hpp"
#include "egw/core/admission.hpp"
#include "egw/model/codec.hpp"
#include "egw/model/text.hpp"

namespace egw::app {
namespace {

using model::Kind;
using nlohmann::json;

// The objects as they would be stored: those of the store, if it is asked, and the manifests that
// have passed.
class Objects {
 public:
  // Everything that admission may ask for.
  Result<void> read(Session& session) {
    for (const Kind kind :
         {Kind::kNamespace, Kind::kNode, Kind::kEgressClusterInfo, Kind::kEgressTunnel,
          Kind::kEgressGateway, Kind::kEgressPolicy, Kind::kEgressClusterPolicy}) {
      auto listed = session.list(host::Query{kind, "", "", "", ""});
      if (!listed) return tl::unexpected(std::move(listed.error()));
      for (auto& object : *listed) {
        auto meta = model::decode_meta(object.document);
        if (!meta) return tl::unexpected(std::move(meta.error()));
        put(kind, meta->key(), std::move(object.document));
      }
    }
    return {};
  }
  [[nodiscard]] const json* find(Kind kind, const model::Key& key) const {
    const auto all = objects_.find(kind);
    if (all == objects_.end()) return nullptr;
    const auto at = all->second.find(key);
    return at == all->second.end() ? nullptr : &at->second;
  }
  void put(Kind kind, const model::Key& key, json document) {
    objects_[kind][key] = std::move(document);
    if (kind == Kind::kEgressGateway) refused_.erase(key);
  }
  // A new gateway that is refused: it will be there when it is mended, and policies that refer to
  // it are judged as if it were.
  void put_refused(const model::Key& key, json gateway) { refused_[key] = std::move(gateway); }

  // For judging an object of that kind.
  [[nodiscard]] core::ObjectReader reader(Kind judged) const {
    const bool all = judged == Kind::kEgressPolicy || judged == Kind::kEgressClusterPolicy;
    core::ObjectReader out;
    out.get = [this, all](Kind kind, const model::Key& key) {
      const json* found = find(kind, key);
      if (found == nullptr && all && kind == Kind::kEgressGateway) {
        const auto refused = refused_.find(key);
        if (refused != refused_.end()) found = &refused->second;
      }
      return std::shared_ptr<const json>(std::shared_ptr<void>(), found);  // not owned
    };
    out.each = [this, all](Kind kind, const core::ObjectReader::Visit& visit) {
      bool has_default = false;
      const auto at = objects_.find(kind);
      if (at != objects_.end()) {
        for (const auto& [key, document] : at->second) {
          has_default = has_default || is_default(document);
          visit(document);
        }
      }
      if (!all || kind != Kind::kEgressGateway) return;
      for (const auto& [key, document] : refused_) {
        // Of two defaults the one that is good is it.
        if (!has_default || !is_default(document)) visit(document);
      }
    };
    return out;
  }

 private:
  static bool is_default(const json& document) {
    static const json::json_pointer kDefault("/spec/clusterDefault");
    return document.contains(kDefault) && document.at(kDefault) == true;
  }

  std::map<Kind, std::map<model::Key, json>> objects_;
  std::map<model::Key, json> refused_;
};

class Checker {
 public:
  Checker(Context& context, const model::Settings& settings, Objects& objects)
      : console_(context.console), settings_(settings), objects_(objects) {}

  // In passes; each is told in its place.
  void check(const std::vector<Manifest>& manifests) {
    std::vector<core::AdmitAnswer> answers(manifests.size());
    in_passes(manifests, [&](std::size_t i) { return judge(manifests[i], answers[i]); });
    for (std::size_t i = 0; i < manifests.size(); ++i) tell(manifests[i], answers[i]);
  }

  // A manifest that is none, or stands there twice.
  void unreadable(const Error& error) {
    ++checked_;
    ++refused_;
    console_.error(error.to_string());
  }

  int report() {
    console_.out(fmt::format("{} checked, {} refused, {}\n", checked_, refused_,
                             model::counted(warnings_, "warning")));
    return refused_ == 0 ? kDone : kRefused;
  }

 private:
  Attempt judge(const Manifest& m, core::AdmitAnswer& answer) {
    const json* old = objects_.find(m.kind, m.key);
    const json wanted = merge_applied(m.kind, old == nullptr ? json() : *old, m.document);
    json result;
    answer = core::admit(old == nullptr ? core::AdmitOp::kCreate : core::AdmitOp::kUpdate, m.kind,
                         old == nullptr ? json() : *old, wanted, objects_.reader(m.kind), settings_,
                         result);
    if (!answer.admitted) {
      if (old == nullptr && m.kind == Kind::kEgressGateway) objects_.put_refused(m.key, m.document);
      return Attempt::kRefused;
    }
    const bool changed = old == nullptr || *old != result;
    objects_.put(m.kind, m.key, std::move(result));
    return changed ? Attempt::kChanged : Attempt::kUnchanged;
  }

  void tell(const Manifest& m, const core::AdmitAnswer& answer) {
    ++checked_;
    const std::string where = m.source + ": " + m.label();
    for (const auto& warning : answer.warnings) console_.warning(where + ": " + warning);
    warnings_ += answer.warnings.size();
    refused_ += answer.admitted ? 0 : 1;
    for (const auto& denial : answer.denials) console_.error(where + ": " + denial);
  }

  Console& console_;
  const model::Settings& settings_;
  Objects& objects_;
  std::size_t checked_ = 0, refused_ = 0, warnings_ = 0;
};

int run_check(Context& context) {
  const Args& args = context.args;
  if (!args.has("filename")) return usage_error(context, "check", "-f FILE|DIR|- is missing");
  int code = kDone;
  const auto config = load(context, code);
  if (config == nullptr) return code;
  Objects objects;
  if (args.has("stored")) {
    const auto session = open_store(context, *config, code);
    if (session == nullptr) return code;
    if (auto ok = objects.read(*session); !ok) {
      context.console.error(ok.error().to_string());
      return kRefused;
    }
  }
  Checker checker(context, config->runtime.settings, objects);
  const ManifestSet set = read_in_order(args.options.at("filename"), args.get("namespace"));
  for (const Error& error : set.unreadable) checker.unreadable(error);
  checker.check(set.manifests);
  return finish(context, checker.report());
}

}  // namespace

Verb check_verb() {
  Verb v;
  v.name = "check";
  v.usage = "-f FILE|DIR|- [--stored] [-n NAMESPACE]";
  v.summary = "Say what is wrong with manifests; store nothing";
  v.details =
      "The rules are those of apply. The manifests are judged together, in whatever order they "
      "stand, and\nevery fault is told, each with its field. Without --stored no store is needed; "
      "with it they are judged as\nchanges of what is stored.\n\n"
      "examples:\n"
      "  egw check -f manifests/\n"
      "  egw check -f egressgateway.yaml --stored";
  v.options = {
      {"filename", 'f', "FILE", "file, folder or - for standard input; repeatable"},
      {"namespace", 'n', "NAMESPACE", "for objects that name none (default: default)"},
      {"stored", 0, "", "judge them together with what is stored"},
  };
  v.run = run_check;
  return v;
}

}  // namespace egw::app
