// A link in another page led here, and the browser kept the cookie back: open the same address as this page's own.
location.replace(`/?again${location.hash}`);
