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
