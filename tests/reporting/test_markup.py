from vadv_dist.reporting.markup import Markup, join, tag


def test_text_is_escaped_and_markup_is_not():
    assert tag("td", "a < b & 'c'") == "<td>a &lt; b &amp; &#x27;c&#x27;</td>"
    assert tag("p", tag("b", "x"), " & y") == "<p><b>x</b> &amp; y</p>"
    assert join("<", Markup("<br>")) == "&lt;<br>"


def test_attributes_are_escaped_and_named_as_in_html():
    assert tag("a", class_='"><script>', aria_hidden="true") == (
        '<a class="&quot;&gt;&lt;script&gt;" aria-hidden="true"></a>'
    )
    assert tag("i", title=None, tabindex=0) == '<i tabindex="0"></i>'


def test_void_elements_are_not_closed():
    assert tag("meta", charset="utf-8") == '<meta charset="utf-8">'
