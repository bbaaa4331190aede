from vadv_dist.reporting.markup import Markup, join, tag


def test_text_is_escaped_and_markup_is_not():
    assert tag("td", "a < b & 'c'") == "<td>a &lt; b &amp; &#x27;c&#x27;</td>"
    assert tag("p", tag("b", "x"), " & y") == "<p><b>x</b> &amp; y</p>"
    assert join("<", Markup("<br>")) == "&lt;<br>"


def test_attributes_are_escaped_and_named_as_html_has_them():
    assert tag("a", class_='"><script>', aria_hidden="true") == (
        '<a class="&quot;&gt;&lt;script&gt;" aria-hidden="true"></a>'
    )
    assert tag("i", title=None, x=1.5, y=2.0, z=3) == '<i x="1.5" y="2" z="3"></i>'


def test_elements_that_html_closes_itself_stay_open():
    assert tag("meta", charset="utf-8") == '<meta charset="utf-8">'
