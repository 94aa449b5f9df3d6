//! What R4 lets a narrative say: well-formed XHTML with text, tables, lists, links and pictures. Whatever shows a record
//! later shows its narratives, so a script, a form or a foreign object never gets in.

use quick_xml::events::{BytesStart, Event};
use quick_xml::reader::Reader;

/// Deeper nesting is no text for people.
const DEPTH_MAX: usize = 100;
const ATTRIBUTES_MAX: usize = 20;

const NAMESPACE: &str = "http://www.w3.org/1999/xhtml";
const ELEMENTS: &[&str] = &[
    "a",
    "abbr",
    "acronym",
    "address",
    "area",
    "b",
    "bdo",
    "big",
    "blockquote",
    "br",
    "caption",
    "cite",
    "code",
    "col",
    "colgroup",
    "dd",
    "dfn",
    "div",
    "dl",
    "dt",
    "em",
    "h1",
    "h2",
    "h3",
    "h4",
    "h5",
    "h6",
    "hr",
    "i",
    "img",
    "kbd",
    "li",
    "map",
    "ol",
    "p",
    "pre",
    "q",
    "samp",
    "small",
    "span",
    "strong",
    "sub",
    "sup",
    "table",
    "tbody",
    "td",
    "tfoot",
    "th",
    "thead",
    "tr",
    "tt",
    "ul",
    "var",
];
const ATTRIBUTES: &[&str] = &[
    "abbr",
    "accesskey",
    "align",
    "alt",
    "axis",
    "bgcolor",
    "border",
    "cellpadding",
    "cellspacing",
    "char",
    "charoff",
    "cite",
    "class",
    "colspan",
    "coords",
    "dir",
    "frame",
    "headers",
    "height",
    "href",
    "id",
    "lang",
    "name",
    "rowspan",
    "rules",
    "scope",
    "shape",
    "span",
    "src",
    "start",
    "style",
    "summary",
    "tabindex",
    "title",
    "type",
    "valign",
    "nowrap",
    "usemap",
    "value",
    "width",
    "xml:lang",
    "xmlns",
];

/// Why a narrative is refused.
type Refused = &'static str;

const MALFORMED: Refused = "must be one well-formed XHTML div";

/// Whether a narrative is what R4 allows. One that says nothing is let in: R4's own examples have such.
pub fn check(text: &str) -> Result<(), Refused> {
    let mut reader = Reader::from_str(text);
    let (mut depth, mut ended) = (0_usize, false);
    loop {
        match reader.read_event().map_err(|_| MALFORMED)? {
            Event::Start(tag) if !ended => {
                element(&tag, depth == 0)?;
                depth += 1;
                if depth > DEPTH_MAX {
                    return Err("is nested too deeply");
                }
            }
            Event::Empty(tag) if !ended => {
                element(&tag, depth == 0)?;
                ended = depth == 0;
            }
            Event::End(_) => {
                depth = depth.checked_sub(1).ok_or(MALFORMED)?;
                ended = depth == 0;
            }
            Event::Text(_) | Event::CData(_) | Event::GeneralRef(_) if depth > 0 => {}
            Event::Text(text) if text.iter().all(u8::is_ascii_whitespace) => {}
            Event::Comment(_) => {}
            Event::Eof if ended => return Ok(()),
            _ => return Err(MALFORMED),
        }
    }
}

fn element(tag: &BytesStart<'_>, is_root: bool) -> Result<(), Refused> {
    let name = std::str::from_utf8(tag.name().into_inner()).map_err(|_| MALFORMED)?;
    if is_root && name != "div" {
        return Err(MALFORMED);
    }
    if !ELEMENTS.contains(&name) {
        return Err("has an element that R4 does not allow in a narrative");
    }
    let (mut seen, mut named) = (Vec::new(), false);
    for attribute in tag.attributes().with_checks(false) {
        let attribute = attribute.map_err(|_| MALFORMED)?;
        let key = attribute.key.into_inner().to_vec();
        let value = std::str::from_utf8(&attribute.value).map_err(|_| MALFORMED)?;
        if seen.len() >= ATTRIBUTES_MAX || seen.contains(&key) || value.contains('<') {
            return Err(MALFORMED);
        }
        named |= key == b"xmlns" && value == NAMESPACE;
        attribute_fits(name, &key, value)?;
        seen.push(key);
    }
    if is_root && !named { Err("its div must name the XHTML namespace") } else { Ok(()) }
}

fn attribute_fits(element: &str, key: &[u8], value: &str) -> Result<(), Refused> {
    let key = std::str::from_utf8(key).map_err(|_| MALFORMED)?;
    if !ATTRIBUTES.contains(&key) {
        return Err("has an attribute that R4 does not allow in a narrative");
    }
    match key {
        "xmlns" if value != NAMESPACE => Err("has an element that R4 does not allow in a narrative"),
        "href" | "src" | "cite" if !leads_somewhere_safe(element, value) => {
            Err("has a link that is neither a web nor a mail address")
        }
        _ => Ok(()),
    }
}

/// Relative addresses, the web's and mail's; a picture may be in the text itself. A browser takes escapes for what they
/// stand for and drops control characters, so an address is judged as it would be read.
fn leads_somewhere_safe(element: &str, value: &str) -> bool {
    let Ok(plain) = quick_xml::escape::unescape(value) else { return false };
    let plain: String = plain.chars().filter(|c| !c.is_control() && !c.is_whitespace()).collect();
    let Some((scheme, rest)) = plain.split_once(':') else { return true };
    if scheme.contains(['/', '?', '#']) {
        return true;
    }
    match scheme.to_ascii_lowercase().as_str() {
        "http" | "https" | "mailto" | "tel" | "ftp" | "urn" => true,
        // A picture of this kind can hold a script.
        "data" => element == "img" && rest.starts_with("image/") && !rest.starts_with("image/svg"),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn div(inside: &str) -> String {
        format!("<div xmlns=\"{NAMESPACE}\">{inside}</div>")
    }

    #[test]
    fn text_tables_links_and_pictures_are_allowed() {
        for inside in [
            "x",
            "&nbsp;",
            "<p class=\"a\" style=\"color: red\">x &lt; y<br/></p><!-- z -->",
            "<table border=\"1\"><thead><tr><th colspan=\"2\">x</th></tr></thead><tbody><tr><td>y</td></tr></tbody></table>",
            "<a href=\"https://x.example/?a=1&amp;b=2\">x</a><a name=\"y\"/><a href=\"#y\">z</a><a href='Patient/1'>p</a>",
            "<img src=\"data:image/png;base64,AAAA\" alt=\"x\"/>",
            "<a href=\"/a?at=10:30\">x</a>",
        ] {
            assert_eq!(check(&div(inside)), Ok(()), "{inside}");
        }
        for text in [format!(" {} \n", div("x")), div(""), format!("<div xmlns=\"{NAMESPACE}\"/>")] {
            assert_eq!(check(&text), Ok(()), "{text}");
        }
    }

    #[test]
    fn what_could_act_in_a_browser_is_refused() {
        for inside in [
            "<script>x</script>",
            "<SCRIPT>x</SCRIPT>",
            "<p onclick=\"x()\">x</p>",
            "<img src=\"x\" onerror='x()'/>",
            "<a href=\"javascript:x()\">x</a>",
            "<a href=\" java&#10;script:x()\">x</a>",
            "<a href=\"&#106;avascript&#58;x()\">x</a>",
            "<a href=\"&x;\">x</a>",
            "<a href=\"data:text/html,x\">x</a>",
            "<img src=\"data:image/svg+xml,x\"/>",
            "<form action=\"x\"><input/></form>",
            "<iframe src=\"https://x.example\"/>",
            "<object data=\"x\"/>",
            "<style>x</style>",
            "<svg xmlns=\"http://www.w3.org/2000/svg\">x</svg>",
            "<x:script xmlns:x=\"http://www.w3.org/1999/xhtml\">x</x:script>",
            "<p xmlns=\"http://www.w3.org/2000/svg\">x</p>",
        ] {
            assert!(check(&div(inside)).is_err(), "{inside}");
        }
    }

    #[test]
    fn what_is_no_div_is_refused() {
        let many: String = (0..40).map(|n| format!(" a{n}=\"x\"")).collect();
        for text in [
            "x".to_owned(),
            "<div>x</div>".to_owned(),
            format!("<p xmlns=\"{NAMESPACE}\">x</p>"),
            div("<p>x"),
            div("x</p>"),
            format!("{}{}", div("x"), div("y")),
            format!("{}y", div("x")),
            format!("<!DOCTYPE div [<!ENTITY x \"y\">]>{}", div("x")),
            format!("<?xml-stylesheet href=\"x\"?>{}", div("x")),
            div(&format!("<p{many}>x</p>")),
            div("<p class=\"a\" class=\"b\">x</p>"),
            div(&format!("{}x{}", "<div>".repeat(200), "</div>".repeat(200))),
            format!("<div xmlns=\"{NAMESPACE}\"/>{}", div("x")),
            "<div/>".to_owned(),
        ] {
            assert!(check(&text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "(<|>|/|div|a|=|\"|'|&|;|#|!|-|\\[|\\?|xmlns| |\\PC){0,60}") {
            let _ = check(&text);
            let _ = check(&div(&text));
        }
    }
}
