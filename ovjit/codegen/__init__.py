"""From plans to machine code: loop emitters, the vector vocabulary, the JIT and its object files."""
