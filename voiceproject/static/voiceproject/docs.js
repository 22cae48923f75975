"use strict";

// Swagger UI as a reader can use it at once. On its own it fills optional fields of a form with samples, sends those
// that are empty, and plays an answer by asking for its URL again, which a POST does not allow.
const docsPlugin = ({ React }) => {
  const make = React.createElement;

  // An optional field is empty until somebody writes into it.
  class OptionalField extends React.Component {
    componentDidMount() {
      this.props.onChange("");
    }

    render() {
      const { Original, ...props } = this.props;
      return make(Original, { ...props, dispatchInitialValue: false });
    }
  }

  // What has come is played, and can be kept.
  class Playable extends React.Component {
    constructor(props) {
      super(props);
      this.state = { url: URL.createObjectURL(props.content) };
    }

    componentWillUnmount() {
      URL.revokeObjectURL(this.state.url);
    }

    render() {
      const { url } = this.state;
      const name = `audio.${this.props.contentType.replace(/;.*/, "").split("/")[1].replace("mpeg", "mp3")}`;
      return make("div", { className: "playable" }, make("h5", null, "Response body"),
        make("audio", { controls: true, src: url }), make("a", { href: url, download: name }, "Download file"));
    }
  }

  return {
    wrapComponents: {
      JsonSchemaForm: (Original) => (props) =>
        make(props.dispatchInitialValue && !props.required ? OptionalField : Original, { ...props, Original }),
      ParameterIncludeEmpty: (Original) => (props) =>
        make(Original, { ...props, isIncludedOptions: { ...props.isIncludedOptions, defaultValue: false } }),
      responseBody: (Original) => (props) =>
        /^audio\//.test(props.contentType) && props.content instanceof Blob
          ? make(Playable, { ...props, key: props.content.size })
          : make(Original, props),
    },
  };
};

// What Swagger UI leaves out for those who do not see the page: regions, levels of headings, names of fields, one id
// for one thing. A link inside a button cannot be reached by the keyboard; the button leads to the same place.
const nameWhatHasNoName = (root) => {
  for (const [part, name] of [[".information-container", "About"], [".scheme-container, .schemes-server-container", "Server"]]) {
    const box = root.querySelector(part);
    box?.setAttribute("role", "region");
    box?.setAttribute("aria-label", name);
  }
  const levels = [["h3.opblock-tag, section.models h4", "2"], [".opblock h4", "3"], [".opblock h5", "4"]];
  for (const [headings, level] of levels) {
    for (const heading of root.querySelectorAll(headings)) heading.setAttribute("aria-level", level);
  }
  for (const link of root.querySelectorAll("button.opblock-summary-control a[href]")) link.removeAttribute("href");
  for (const box of root.querySelectorAll("pre.microlight:not([tabindex])")) box.tabIndex = 0;
  for (const label of root.querySelectorAll("label[id$=_select]")) label.removeAttribute("id");
  root.querySelectorAll("input[id=include_empty_value]").forEach((field) => {
    const label = field.closest("label") ?? field.parentElement.querySelector("label");
    field.id = `${field.id}_${(nameWhatHasNoName.count = (nameWhatHasNoName.count ?? 0) + 1)}`;
    if (label) label.htmlFor = field.id;
  });
  const fields = "select:not([aria-label]), input[type=file]:not([aria-label]), textarea:not([aria-label])";
  for (const field of root.querySelectorAll(fields)) {
    const row = field.closest("tr[data-property-name], tr[data-param-name]");
    const name = row?.dataset.propertyName ?? row?.dataset.paramName;
    const other = field.id === "servers" ? "Server" : field.closest(".responses-wrapper") ? "Example" : "Content type";
    field.setAttribute("aria-label", name ?? (field.matches(".body-param__text") ? "Request body" : other));
  }
};

document.addEventListener("DOMContentLoaded", () => {
  lookAfterChanges(document.getElementById("swagger-ui"), nameWhatHasNoName);
});
